//! The checker against histories made by hand, against stateright's tester, and for its speed.

use std::collections::BTreeMap;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::*;

fn value(n: u64) -> Option<Value> {
    (n > 0).then_some(Value(n))
}

/// A client of the register 0, which asks and is answered at these moments; 0 is nothing.
fn op(client: usize, begun: u64, ended: u64, call: Call, answer: Answer) -> Operation {
    Operation { register: 0, client, call, begun, answered: Some((ended, answer)) }
}

fn put(begun: u64, ended: u64, v: u64) -> Operation {
    op(1, begun, ended, Call::Put(Value(v)), Answer::Put)
}

fn get(begun: u64, ended: u64, v: u64) -> Operation {
    op(2, begun, ended, Call::Get, Answer::Got(value(v)))
}

fn swap(begun: u64, ended: u64, from: u64, to: u64) -> Operation {
    op(3, begun, ended, Call::Swap { from: value(from), to: Value(to) }, Answer::Swapped)
}

fn kept(begun: u64, ended: u64, from: u64, to: u64, held: u64) -> Operation {
    op(3, begun, ended, Call::Swap { from: value(from), to: Value(to) }, Answer::Kept(value(held)))
}

fn open(operation: Operation) -> Operation {
    Operation { answered: None, ..operation }
}

fn holds(history: &[Operation]) {
    assert_eq!(check(history).map(|checked| checked.operations), Ok(history.len()));
}

/// The number of operations that are shown.
fn breaks(history: &[Operation]) -> usize {
    match check(history) {
        Err(Fault::Violated { evidence, .. }) => {
            assert_eq!(
                search::linearizable(&evidence),
                Some(false),
                "what is shown has an order: {evidence:?}"
            );
            evidence.len()
        }
        other => panic!("{other:?} for {history:?}"),
    }
}

#[test]
fn what_one_client_does_after_the_other_is_answered_by_the_last_write() {
    holds(&[]);
    holds(&[get(0, 1, 0), put(2, 3, 1), get(4, 5, 1), swap(6, 7, 1, 2), get(8, 9, 2), kept(10, 11, 1, 3, 2)]);
}

#[test]
fn a_stale_read_is_caught() {
    let noise = [get(1, 2, 0), get(6, 7, 1), get(18, 19, 2)];
    let stale = [put(3, 5, 1), put(8, 10, 2), get(11, 12, 1)];
    assert_eq!(breaks(&[noise.as_slice(), &stale].concat()), 3);
    // While the second write goes on, either is right.
    holds(&[put(3, 5, 1), put(8, 13, 2), get(11, 12, 1), get(14, 15, 2)]);
    // Once the newer one was seen, the older one is not seen again.
    assert_eq!(breaks(&[put(0, 1, 1), put(2, 20, 2), get(3, 4, 2), get(5, 6, 1)]), 4);
}

#[test]
fn a_lost_write_is_caught() {
    assert_eq!(breaks(&[put(0, 1, 1), get(2, 3, 0)]), 2);
    assert_eq!(breaks(&[put(0, 1, 1), put(2, 3, 2), get(4, 5, 2), kept(6, 7, 5, 6, 1)]), 3);
}

#[test]
fn two_swaps_of_one_value_are_caught() {
    assert_eq!(breaks(&[put(0, 1, 1), swap(2, 5, 1, 2), swap(3, 6, 1, 3), get(8, 9, 3)]), 3);
    assert_eq!(breaks(&[swap(2, 5, 0, 2), swap(3, 6, 0, 3)]), 2);
    holds(&[put(0, 1, 1), swap(2, 5, 1, 2), swap(3, 6, 2, 3)]);
}

#[test]
fn a_swap_that_is_refused_for_no_reason_is_caught() {
    assert_eq!(breaks(&[put(0, 1, 1), kept(2, 3, 1, 2, 1)]), 2);
    assert_eq!(breaks(&[put(0, 1, 1), get(2, 3, 1), kept(4, 5, 1, 2, 0)]), 2);
}

#[test]
fn a_value_that_nobody_wrote_and_one_from_the_future_are_caught() {
    assert_eq!(breaks(&[put(0, 1, 1), get(2, 3, 9)]), 1);
    assert_eq!(breaks(&[get(0, 1, 1), put(2, 3, 1)]), 1);
    assert_eq!(breaks(&[get(0, 1, 1), open(put(2, 3, 1))]), 1);
}

#[test]
fn what_was_not_answered_may_happen_late_or_never_but_not_come_and_go() {
    let late = open(put(0, 0, 9));
    holds(&[late, put(1, 2, 1), get(3, 4, 1), get(5, 6, 9), get(7, 8, 9)]);
    holds(&[late, put(1, 2, 1), get(3, 4, 1)]);
    assert_eq!(breaks(&[late, put(1, 2, 1), get(3, 4, 9), get(5, 6, 1), get(7, 8, 9)]), 4);
    // Twice, as by a client that sends it again.
    assert_eq!(breaks(&[late, get(1, 2, 9), put(3, 4, 1), get(5, 6, 1), get(7, 8, 9)]), 4);
}

#[test]
fn a_chain_of_swaps_that_nobody_was_told_of_is_found_by_its_end() {
    let chain = [open(put(0, 0, 1)), open(swap(1, 0, 1, 2)), open(swap(2, 0, 2, 3))];
    holds(&[chain.as_slice(), &[get(10, 11, 0), get(12, 13, 3)]].concat());
    holds(&[chain.as_slice(), &[get(10, 11, 1), get(12, 13, 2)]].concat());
    breaks(&[chain.as_slice(), &[get(10, 11, 3), get(12, 13, 2)]].concat());
}

#[test]
fn each_register_is_checked_by_itself() {
    let other = |o: Operation| Operation { register: 1, ..o };
    holds(&[put(0, 1, 1), other(get(2, 3, 0)), get(4, 5, 1)]);
    let broken = [put(0, 1, 1), get(4, 5, 1), other(put(0, 1, 2)), other(get(2, 3, 0))];
    assert!(matches!(check(&broken), Err(Fault::Violated { register: 1, .. })));
    assert!(matches!(check(&[put(0, 1, 1), put(2, 3, 1)]), Err(Fault::Repeated { .. })));
}

#[test]
fn what_is_shown_reads_as_a_story() {
    let fault = check(&[put(0, 1_500_000, 1), get(2_000_000, 3_000_000, 0)]).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "register 0 is not linearizable: 0.000 ms, client 1: put 1, done at 1.500 ms; 2.000 ms, client 2: get, got \
         nothing at 3.000 ms"
    );
}

/// A register, and clients whose operations take effect at some moment in between; some are never answered, and take
/// effect at any time or never.
fn lived(rng: &mut fastrand::Rng, clients: usize, length: usize, unanswered: f64) -> Vec<Operation> {
    let mut history: Vec<Operation> = Vec::new();
    let mut held: Option<Value> = None;
    let mut seen: Vec<Option<Value>> = vec![None; clients];
    // By client: its operation, and the answer once it has taken effect.
    let mut running: BTreeMap<usize, (usize, Option<Answer>)> = BTreeMap::new();
    let mut orphans: Vec<Call> = Vec::new();
    let mut fresh = 0;
    for now in 0.. {
        if history.len() == length && running.is_empty() {
            return history;
        }
        if !orphans.is_empty() && rng.u8(..) < 20 {
            let call = orphans.swap_remove(rng.usize(..orphans.len()));
            let _ = effect(call, &mut held);
        }
        let client = rng.usize(..clients);
        match running.get(&client).copied() {
            None if history.len() < length => {
                fresh += 1;
                let call = match rng.u8(..10) {
                    0..4 => Call::Get,
                    4..7 => Call::Put(Value(fresh)),
                    _ => Call::Swap { from: seen[client], to: Value(fresh) },
                };
                running.insert(client, (history.len(), None));
                history.push(Operation { register: 0, client, call, begun: now, answered: None });
            }
            None => {}
            Some((n, None)) if rng.f64() < unanswered => {
                orphans.push(history[n].call);
                running.remove(&client);
            }
            Some((n, None)) => {
                let answer = effect(history[n].call, &mut held);
                running.insert(client, (n, Some(answer)));
            }
            Some((n, Some(answer))) => {
                history[n].answered = Some((now, answer));
                seen[client] = match answer {
                    Answer::Got(value) | Answer::Kept(value) => value,
                    Answer::Put | Answer::Swapped => history[n].call.writes(),
                };
                running.remove(&client);
            }
        }
    }
    history
}

fn effect(call: Call, held: &mut Option<Value>) -> Answer {
    match call {
        Call::Get => Answer::Got(*held),
        Call::Put(value) => {
            *held = Some(value);
            Answer::Put
        }
        Call::Swap { from, to } if *held == from => {
            *held = Some(to);
            Answer::Swapped
        }
        Call::Swap { .. } => Answer::Kept(*held),
    }
}

#[derive(Clone)]
struct Register(Option<Value>);

impl SequentialSpec for Register {
    type Op = Call;
    type Ret = Answer;

    fn invoke(&mut self, op: &Call) -> Answer {
        effect(*op, &mut self.0)
    }
}

/// What stateright says of a history. A client that goes on without an answer is another one to it.
fn stateright(history: &[Operation]) -> bool {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (n, o) in history.iter().enumerate() {
        events.push((o.begun, false, n));
        events.extend(o.answered.map(|(at, _)| (at, true, n)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(Register(None));
    for (_, answered, n) in events {
        match history[n].answered {
            Some((_, answer)) if answered => tester.on_return(n, answer).map(drop).unwrap(),
            _ => tester.on_invoke(n, history[n].call).map(drop).unwrap(),
        }
    }
    tester.is_consistent()
}

#[test]
fn it_says_the_same_as_stateright_of_thousands_of_small_histories() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4_000 {
        let mut history = lived(&mut rng, 3, 7, 0.15);
        if rng.bool() {
            // One answer is another than it was.
            let n = rng.usize(..history.len());
            let other = value(rng.u64(..8));
            let o = &mut history[n];
            o.answered = o.answered.map(|(at, answer)| match (answer, rng.bool()) {
                (Answer::Got(_), _) => (at, Answer::Got(other)),
                (Answer::Kept(_), true) => (at, Answer::Swapped),
                (Answer::Kept(_) | Answer::Swapped, _) => (at, Answer::Kept(other)),
                (Answer::Put, _) => (at, Answer::Put),
            });
        }
        let expected = stateright(&history);
        assert_eq!(search::linearizable(&history), Some(expected), "{history:#?}");
        if expected {
            good += 1;
        } else {
            bad += 1;
            breaks(&history);
        }
    }
    assert!(good > 1_000 && bad > 500, "{good} and {bad}");
}

#[test]
fn thousands_of_operations_with_open_ones_are_checked_and_one_wrong_answer_is_found_among_them() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut history = lived(&mut rng, 8, 20_000, 0.01);
    let checked = check(&history).unwrap();
    assert!(checked.operations == 20_000 && checked.open > 100, "{checked:?}");
    // The value that was there long ago.
    let old = history[100..].iter().find_map(|o| match o.answered {
        Some((_, Answer::Got(Some(value)))) => Some(value),
        _ => None,
    });
    let late =
        (15_000..history.len()).find(|n| matches!(history[*n].answered, Some((_, Answer::Got(_))))).unwrap();
    history[late].answered = history[late].answered.map(|(at, _)| (at, Answer::Got(old)));
    let shown = breaks(&history);
    assert!(shown <= 8, "{shown} operations are shown");
}
