//! (test server follows)
