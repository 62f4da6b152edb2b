//! The `verify` room.
