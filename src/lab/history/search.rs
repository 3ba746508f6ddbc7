//! The search for an order: Wing and Gong's, with Lowe's memory of where it has been.
//!
//! Open operations would make it exponential: each may take effect at any time after its call. They are settled before.
//! Since every value has one writer and every answer tells what the register held, an open write whose value nobody ever
//! saw changes nothing by having happened or not: whatever order explains the history with it explains it without, as
//! only another write can follow it. And one whose value was seen did happen, before the first who saw it was answered.
//! So each is either left out or closed at that moment, and what is left overlaps no more than clients do.
//!
//! Source: Lowe, "Testing for linearizability", Concurrency and Computation 29(4), 2017.

use std::collections::{BTreeMap, HashSet};

use super::{Answer, Call, Operation, Value};

/// So many steps are made before it is given up: some seconds' worth.
const STEPS: usize = 20_000_000;

/// What a register holds.
type Held = Option<Value>;

/// What an operation is for the register, when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It must hold this.
    Reads(Option<Value>),
    /// It holds this.
    Writes(Value),
    /// It must hold the one and holds the other.
    Swaps(Option<Value>, Value),
    /// No register does that.
    Never,
}

impl Effect {
    fn of(call: Call, answer: Answer) -> Self {
        match (call, answer) {
            (Call::Get, Answer::Got(value)) => Self::Reads(value),
            (Call::Put(value), Answer::Put) => Self::Writes(value),
            (Call::Swap { from, to }, Answer::Swapped) => Self::Swaps(from, to),
            (Call::Swap { from, .. }, Answer::Kept(value)) if value != from => Self::Reads(value),
            _ => Self::Never,
        }
    }

    fn of_open(call: Call) -> Option<Self> {
        match call {
            Call::Get => None,
            Call::Put(value) => Some(Self::Writes(value)),
            Call::Swap { from, to } => Some(Self::Swaps(from, to)),
        }
    }

    /// Whose value it sees.
    fn sees(self) -> Option<Value> {
        match self {
            Self::Reads(value) | Self::Swaps(value, _) => value,
            Self::Writes(_) | Self::Never => None,
        }
    }

    /// What is held afterwards; `None` when its turn can't be now.
    fn on(self, held: Held) -> Option<Held> {
        match self {
            Self::Reads(value) => (value == held).then_some(held),
            Self::Writes(value) => Some(Some(value)),
            Self::Swaps(from, to) => (from == held).then_some(Some(to)),
            Self::Never => None,
        }
    }
}

/// An operation that happened, and in between when.
#[derive(Clone, Copy, Debug)]
struct Span {
    begun: u64,
    ended: u64,
    effect: Effect,
}

/// Leaves out or closes the open operations.
fn settled(operations: &[Operation]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut open: BTreeMap<Value, (u64, Effect)> = BTreeMap::new();
    // By value: when the first who saw it was answered.
    let mut seen: BTreeMap<Value, u64> = BTreeMap::new();
    let see = |seen: &mut BTreeMap<Value, u64>, effect: Effect, ended: u64| {
        if let Some(value) = effect.sees() {
            let first = seen.entry(value).or_insert(ended);
            *first = (*first).min(ended);
        }
    };
    for operation in operations {
        match (operation.answered, operation.call.writes()) {
            (Some((ended, answer)), _) => {
                let effect = Effect::of(operation.call, answer);
                see(&mut seen, effect, ended);
                spans.push(Span { begun: operation.begun, ended, effect });
            }
            (None, Some(value)) => {
                if let Some(effect) = Effect::of_open(operation.call) {
                    open.insert(value, (operation.begun, effect));
                }
            }
            (None, None) => {}
        }
    }
    // An open swap that happened saw a value itself, whose writer may be open, too.
    loop {
        let before = seen.clone();
        for (value, (_, effect)) in &open {
            if let Some(ended) = before.get(value) {
                see(&mut seen, *effect, *ended);
            }
        }
        if seen == before {
            break;
        }
    }
    for (value, (begun, effect)) in open {
        if let Some(ended) = seen.get(&value) {
            // Seen before it was called: there is no order, and the search finds none.
            let ended = if *ended < begun { u64::MAX } else { *ended };
            spans.push(Span { begun, ended, effect });
        }
    }
    spans
}

/// A chain of calls and answers in the order of time, from which operations are taken out and put back.
struct Chain {
    /// By node, 0 being the head: the span, and for a call the node of its answer.
    nodes: Vec<(usize, Option<usize>)>,
    next: Vec<usize>,
    before: Vec<usize>,
}

impl Chain {
    /// What ends the chain.
    const END: usize = usize::MAX;

    fn of(spans: &[Span]) -> Self {
        // At the same moment calls come first: then the two overlap.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(spans.len() * 2);
        for (n, span) in spans.iter().enumerate() {
            events.push((span.begun, false, n));
            events.push((span.ended, true, n));
        }
        events.sort_unstable();
        let mut answers = vec![0; spans.len()];
        for (at, (_, is_answer, span)) in events.iter().enumerate() {
            if *is_answer && let Some(answer) = answers.get_mut(*span) {
                *answer = at + 1;
            }
        }
        let node = |(_, is_answer, span): &(u64, bool, usize)| {
            (*span, (!*is_answer).then(|| answers.get(*span).copied().unwrap_or(0)))
        };
        let mut nodes = vec![(0, None)];
        nodes.extend(events.iter().map(node));
        let last = events.len();
        Self {
            nodes,
            next: (0..=last).map(|n| if n == last { Self::END } else { n + 1 }).collect(),
            before: (0..=last).map(|n| n.saturating_sub(1)).collect(),
        }
    }

    fn next(&self, node: usize) -> usize {
        self.next.get(node).copied().unwrap_or(Self::END)
    }

    fn take(&mut self, node: usize) {
        let (before, next) = (self.before.get(node).copied().unwrap_or(0), self.next(node));
        if let Some(link) = self.next.get_mut(before) {
            *link = next;
        }
        if let Some(link) = self.before.get_mut(next) {
            *link = before;
        }
    }

    fn put_back(&mut self, node: usize) {
        let (before, next) = (self.before.get(node).copied().unwrap_or(0), self.next(node));
        if let Some(link) = self.next.get_mut(before) {
            *link = node;
        }
        if let Some(link) = self.before.get_mut(next) {
            *link = node;
        }
    }
}

/// Whether there is an order that explains the answers of one register, which holds nothing at first; `None` when that
/// was not found out.
pub(super) fn linearizable(operations: &[Operation]) -> Option<bool> {
    let spans = settled(operations);
    let mut chain = Chain::of(&spans);
    // A set of operations is remembered as the exclusive or of random marks: two sets with one mark are less likely than a
    // computer that errs.
    let mut rng = fastrand::Rng::with_seed(0);
    let marks: Vec<u128> = spans.iter().map(|_| rng.u128(..)).collect();
    let mut been: HashSet<(u128, Option<Value>)> = HashSet::new();
    let mut path: Vec<(usize, Option<Value>)> = Vec::new();
    let (mut held, mut done) = (None, 0_u128);
    let mut at = chain.next(0);
    for _ in 0..STEPS {
        if chain.next(0) == Chain::END {
            return Some(true);
        }
        let (span, answer) = chain.nodes.get(at).copied()?;
        let (Some(effect), Some(mark)) = (spans.get(span).map(|s| s.effect), marks.get(span)) else {
            return None;
        };
        if let Some(answer) = answer {
            let then = effect.on(held).filter(|then| been.insert((done ^ mark, *then)));
            if let Some(then) = then {
                path.push((at, held));
                (held, done) = (then, done ^ mark);
                chain.take(at);
                chain.take(answer);
                at = chain.next(0);
            } else {
                at = chain.next(at);
            }
            continue;
        }
        // An answer whose operation has had no turn: one of the choices before was wrong.
        let Some((call, was)) = path.pop() else { return Some(false) };
        let Some((span, Some(answer))) = chain.nodes.get(call).copied() else { return None };
        chain.put_back(answer);
        chain.put_back(call);
        held = was;
        done ^= marks.get(span).copied().unwrap_or(0);
        at = chain.next(call);
    }
    None
}
