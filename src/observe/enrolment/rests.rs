//! When a request that stays pending is asked about again.
//!
//! Most are decided on at once. One that is not stays for as long as somebody lets it, and asking EC2 and Auto Scaling
//! about it at every look would tell the same. So it rests: for 5 seconds, and for twice as long each time that nothing
//! about it has changed, up to 5 minutes. No answer is kept meanwhile, so nothing can be approved by an old one: what
//! rests is not decided on, and what is decided on was asked about at that look.
//!
//! What must not live here: whether a request is approved.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use crate::model::Step;
use crate::model::enrolment::CertificateRequest;

/// The first rest, and the longest.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// Requests that were asked about and stayed, by name.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeMap<String, Rest>);

#[derive(Debug)]
struct Rest {
    request: CertificateRequest,
    from: Instant,
    length: Duration,
}

impl Rests {
    /// Those of the requests that rest now. One on which nobody has written down why it stays is new, whatever its name.
    pub(super) fn resting(&self, requests: &[CertificateRequest], now: Instant) -> BTreeSet<String> {
        let rests = |request: &&CertificateRequest| {
            self.0.get(&request.name).is_some_and(|rest| {
                request.told.is_some()
                    && is_same(&rest.request, request)
                    && now.duration_since(rest.from) < rest.length
            })
        };
        requests.iter().filter(rests).map(|request| request.name.clone()).collect()
    }

    /// Notes that all that is asked about a request was answered, for those that did not rest.
    pub(super) fn answered(
        &mut self,
        requests: &[CertificateRequest],
        resting: &BTreeSet<String>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for request in requests {
            let name = &request.name;
            let rest = match before.remove(name) {
                Some(rest) if resting.contains(name) => rest,
                Some(Rest { request: last, length, .. }) if is_same(&last, request) => {
                    Rest { request: last, from: now, length: (length * 2).min(REST.1) }
                }
                Some(_) | None => Rest { request: request.clone(), from: now, length: REST.0 },
            };
            self.0.insert(name.clone(), rest);
        }
    }

    /// Ends the rest of requests that a step is about: until it is done, whoever looks asks anew.
    pub(super) fn disturb(&mut self, step: &Step) {
        match step {
            Step::ApproveRequests { requests } => {
                for request in requests {
                    self.0.remove(&request.name);
                }
            }
            Step::LeaveRequests { requests } => {
                for pending in requests {
                    self.0.remove(&pending.request.name);
                }
            }
            _ => {}
        }
    }
}

/// The same but for what is written down on it.
fn is_same(one: &CertificateRequest, other: &CertificateRequest) -> bool {
    let bare = |request: &CertificateRequest| CertificateRequest {
        version: String::new(),
        told: None,
        ..request.clone()
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::enrolment::{NodeSigner, RequestedSubject};
    use crate::model::step::{PendingRequest, RequestRef};

    fn request(name: &str, told: Option<&str>) -> CertificateRequest {
        CertificateRequest {
            name: name.to_owned(),
            version: fastrand::u32(..).to_string(),
            signer: NodeSigner::Client,
            requester: "system:bootstrap:abcdef".to_owned(),
            groups: BTreeSet::new(),
            usages: BTreeSet::new(),
            subject: Ok(RequestedSubject::default()),
            told: told.map(str::to_owned),
        }
    }

    /// A look; whether it asks AWS.
    fn look(rests: &mut Rests, requests: &[CertificateRequest], now: Instant) -> bool {
        let resting = rests.resting(requests, now);
        let asks = requests.iter().any(|request| !resting.contains(&request.name));
        if asks {
            rests.answered(requests, &resting, now);
        }
        asks
    }

    #[test]
    fn a_request_that_stays_refused_for_an_hour_is_asked_about_some_twenty_times() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        assert!(look(&mut rests, &[request("a", None)], start), "it is new");
        let asked: Vec<u64> = (1..=3600)
            .filter(|s| look(&mut rests, &[request("a", Some("no"))], start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(asked[..6], [5, 15, 35, 75, 155, 315]);
        assert!(asked[6..].windows(2).all(|pair| pair[1] - pair[0] == 300), "{asked:?}");
        assert_eq!(asked.len(), 16);
    }

    #[test]
    fn a_new_request_is_asked_about_at_once_and_disturbs_no_other() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        let old = request("old", Some("no"));
        assert!(look(&mut rests, std::slice::from_ref(&old), start));
        let soon = start + Duration::from_secs(1);
        let both = [old.clone(), request("new", None)];
        assert_eq!(rests.resting(&both, soon), ["old".to_owned()].into());
        assert!(look(&mut rests, &both, soon));
        assert!(look(&mut rests, &[old], start + Duration::from_secs(5)), "its rest was not made longer");
    }

    #[test]
    fn a_request_that_changed_or_took_another_s_name_is_new() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        let old = request("a", Some("no"));
        assert!(look(&mut rests, std::slice::from_ref(&old), start));
        assert!(!look(&mut rests, &[request("a", Some("another reason"))], start));
        assert!(look(&mut rests, &[request("a", None)], start), "made anew: nobody has written on it");
        let other = CertificateRequest { signer: NodeSigner::Serving, ..old };
        assert!(look(&mut rests, &[other], start));
    }

    #[test]
    fn what_a_step_is_about_is_asked_about_until_the_step_is_done() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        let all = [request("a", Some("no")), request("b", Some("no")), request("c", Some("no"))];
        look(&mut rests, &all, start);
        let reference = |name: &str| RequestRef { name: name.to_owned(), version: "1".to_owned() };
        rests.disturb(&Step::ApproveRequests { requests: vec![reference("a")] });
        let left = PendingRequest { request: reference("b"), why: "another reason".to_owned() };
        rests.disturb(&Step::LeaveRequests { requests: vec![left] });
        assert_eq!(rests.resting(&all, start), ["c".to_owned()].into());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        look(&mut rests, &[request("a", Some("no"))], start);
        rests.answered(&[], &BTreeSet::new(), start);
        assert!(rests.0.is_empty());
    }
}
