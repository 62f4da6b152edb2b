//! The `mariadb` room.
