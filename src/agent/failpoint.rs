//! Where the laboratory cuts the agent off: `QUORATE_FAIL_BEFORE=STEP[:N]` and
//! `QUORATE_FAIL_AFTER=STEP[:N]` abort it before or after the N-th time of a step. Without the
//! feature `lab` there is nothing here.

#[cfg(feature = "lab")]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    static COUNTS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

    pub fn hit(variable: &str, step: &str) {
        let Ok(wanted) = std::env::var(variable) else { return };
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        if name != step && name != "*" {
            return;
        }
        let count = {
            let mut counts = COUNTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let count = counts.entry(variable.to_owned()).or_default();
            *count += 1;
            *count
        };
        if nth.parse() == Ok(count) {
            tracing::warn!(step, count, "cut off by a fail point");
            std::process::abort();
        }
    }
}

/// The step is about to be done.
#[cfg_attr(not(feature = "lab"), expect(unused_variables, reason = "only the laboratory cuts the agent off"))]
pub fn before(step: &str) {
    #[cfg(feature = "lab")]
    armed::hit("QUORATE_FAIL_BEFORE", step);
}

/// The step has taken effect, and nobody has noted it yet.
#[cfg_attr(not(feature = "lab"), expect(unused_variables, reason = "only the laboratory cuts the agent off"))]
pub fn after(step: &str) {
    #[cfg(feature = "lab")]
    armed::hit("QUORATE_FAIL_AFTER", step);
}
