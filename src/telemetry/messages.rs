//! The messages that matter, each with an id for the journal.
//!
//! An id finds every message of its kind (`journalctl MESSAGE_ID=…`), and leads to its entry in the catalogue
//! (`systemd/quorate.catalog`), which says what to do (`journalctl --catalog`). An id is never used for another message.

/// The agent has started.
pub const STARTED: &str = "41626c638542554aa2c17281526b638a";
/// The agent has stopped.
pub const STOPPED: &str = "4d57f244680359c09a23fb41ed56cb21";
/// This machine can't be learnt about yet.
pub const MACHINE_UNKNOWN: &str = "e8d584d613665bd282790f9b416a3c6b";
/// The configuration is wrong.
pub const CONFIGURATION_WRONG: &str = "3cc6900b00685e42be01c6a318830c77";
/// The machine is ….
pub const PHASE: &str = "230c188fe35a5a2a909d508bb3eadb6a";
/// The machine has halted: only a human can help.
pub const HALTED: &str = "7866350281f950eba589d5f9a218cd2a";
/// The step … was not done.
pub const STEP_FAILED: &str = "c2928ef6b315506e8dd21487e087c8af";
/// The step … did not end.
pub const STEP_GIVEN_UP: &str = "7ac61fe4fb3652beb0ce171a362c5803";
/// A look at the world did not end.
pub const LOOK_GIVEN_UP: &str = "3641963752c05b8d91b6418fcaa27d50";
/// This instance is given up to its Auto Scaling group.
pub const INSTANCE_GIVEN_UP: &str = "48ef7def9bee5218a181bc4aff4abc00";
/// No backup can be restored.
pub const NO_BACKUP_WHOLE: &str = "ea1077e31d8854b187215092cdf104c0";
/// The newest backup could not be restored in a rehearsal.
pub const REHEARSAL_FAILED: &str = "f7de9b75cd595403a060a01f67a6c7d8";
/// A kubeconfig was made for ….
pub const KUBECONFIG_MADE: &str = "7d25e0f15107564d99ef83cbaad665cb";

/// All of them, with their names.
pub const ALL: [(&str, &str); 13] = [
    ("started", STARTED),
    ("stopped", STOPPED),
    ("machineUnknown", MACHINE_UNKNOWN),
    ("configurationWrong", CONFIGURATION_WRONG),
    ("phase", PHASE),
    ("halted", HALTED),
    ("stepFailed", STEP_FAILED),
    ("stepGivenUp", STEP_GIVEN_UP),
    ("lookGivenUp", LOOK_GIVEN_UP),
    ("instanceGivenUp", INSTANCE_GIVEN_UP),
    ("noBackupWhole", NO_BACKUP_WHOLE),
    ("rehearsalFailed", REHEARSAL_FAILED),
    ("kubeconfigMade", KUBECONFIG_MADE),
];
