//! The `backup` room.
