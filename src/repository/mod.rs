//! The `repository` room.
