//! The `restore` room.
