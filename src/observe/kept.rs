//! Answers that serve a little longer, while AWS does not answer.
//!
//! A plan takes several answers at once, and in a storm of throttling they never all come in one look. So what
//! EC2 and Auto Scaling said last serves again where asking anew brings no answer, for [`KEPT_FOR`]: about as old as the
//! first answer of one long look may be, and EC2's own answers are that late without any storm. A look that lacked one of
//! them is completed by the next, which asks for what was missing and not again for the rest.
//!
//! Kept are lists, of which the planner knows that they are late: who founds or takes a volume by one is held by a
//! conditional write, or by EC2 itself. Not kept, and asked for at every look that decides, are the charter (it is read
//! after the volumes, since a mark on one of these comes after its mark there), whatever says that something is not
//! there, EC2's word on single machines and volumes, which counts only when it was said twice, and whether a target is
//! healthy.
//!
//! What must not live here: anything but how old an answer may be.

use tokio::time::{Duration, Instant};

use crate::model::{Fact, Step};

/// How old an answer may be that serves again.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Whether a step may change what EC2 and Auto Scaling list. One that is not known to leave it as it is does.
pub(super) fn may_change(step: &Step) -> bool {
    let elsewhere = matches!(
        step,
        Step::Format { .. }
            | Step::GrowFilesystem { .. }
            | Step::Mount { .. }
            | Step::WriteStamp { .. }
            | Step::SetDataAside { .. }
            | Step::CreateAuthority
            | Step::IssueLeaves { .. }
            | Step::CreateCharter { .. }
            | Step::AmendCharter { .. }
            | Step::ChooseBackup { .. }
            | Step::RestoreData { .. }
            | Step::CopyCharterToVolume { .. }
            | Step::ConfigureEtcd { .. }
            | Step::StartEtcd { .. }
    );
    !elsewhere && !step.is_routine()
}

/// The last answer to one question, with when it was asked.
#[derive(Debug)]
pub(super) struct Kept<T> {
    last: Option<(Instant, T)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Clone> Kept<T> {
    /// Asks. Where that fails in a way that passes, the last answer serves, if it is young enough.
    pub(super) async fn ask<E: std::error::Error>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
        passes: impl Fn(&E) -> bool,
    ) -> Fact<T> {
        let asked = Instant::now();
        let answer = question.await;
        self.settle(asked, answer, Instant::now(), passes)
    }

    /// The same, but the last answer serves without asking, where `completes` says that the last look lacked another.
    pub(super) async fn ask_unless<E: std::error::Error>(
        &mut self,
        completes: bool,
        question: impl Future<Output = Result<T, E>>,
        passes: impl Fn(&E) -> bool,
    ) -> Fact<T> {
        match &self.last {
            Some((at, answer)) if completes && at.elapsed() < KEPT_FOR => Fact::Known(answer.clone()),
            Some(_) | None => self.ask(question, passes).await,
        }
    }

    /// What serves now. An answer is as old as its question.
    fn settle<E: std::error::Error>(
        &mut self,
        asked: Instant,
        answer: Result<T, E>,
        now: Instant,
        passes: impl Fn(&E) -> bool,
    ) -> Fact<T> {
        let error = match answer {
            Ok(answer) => {
                self.last = Some((asked, answer.clone()));
                return Fact::Known(answer);
            }
            Err(error) => error,
        };
        match &self.last {
            Some((at, answer)) if passes(&error) && now.duration_since(*at) < KEPT_FOR => {
                Fact::Known(answer.clone())
            }
            Some(_) | None => {
                self.last = None;
                Err(error).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    enum Failed {
        #[error("throttled")]
        Throttled,
        #[error("denied")]
        Denied,
    }

    use Failed::{Denied, Throttled};

    /// A question asked and answered at this share of the time that answers are kept for.
    fn asked(kept: &mut Kept<u8>, start: Instant, at: f32, answer: Result<u8, Failed>) -> Fact<u8> {
        let at = start + KEPT_FOR.mul_f32(at);
        kept.settle(at, answer, at, |error| *error == Throttled)
    }

    #[test]
    fn an_answer_serves_again_while_the_next_does_not_come() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        assert_eq!(asked(&mut kept, start, 0.0, Err(Throttled)), Fact::unknown("throttled"));
        assert_eq!(asked(&mut kept, start, 0.0, Ok(1)), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 0.5, Err(Throttled)), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 0.9, Ok(2)), Fact::Known(2));
        assert_eq!(asked(&mut kept, start, 1.5, Err(Throttled)), Fact::Known(2));
    }

    #[test]
    fn an_old_answer_does_not_serve_and_using_it_makes_it_no_younger() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        assert_eq!(asked(&mut kept, start, 0.0, Ok(1)), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 0.9, Err(Throttled)), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 1.0, Err(Throttled)), Fact::unknown("throttled"));
    }

    #[test]
    fn an_answer_is_as_old_as_its_question() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let late = start + KEPT_FOR;
        assert_eq!(kept.settle(start, Ok::<u8, Failed>(1), late, |_| true), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 1.0, Err(Throttled)), Fact::unknown("throttled"));
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        assert_eq!(asked(&mut kept, start, 0.0, Ok(1)), Fact::Known(1));
        assert_eq!(asked(&mut kept, start, 0.1, Err(Denied)), Fact::unknown("denied"));
        assert_eq!(asked(&mut kept, start, 0.2, Err(Throttled)), Fact::unknown("throttled"));
    }
}
