//! Which tables are checked, in which order, how many at a time.

use crate::restore::TableName;

/// Tables named in one CHECK TABLE: each statement costs a start of the client.
const BATCH_TABLES_MAX: usize = 50;

/// Shuffles `tables`, which come sorted by name: the same seed gives the same order wherever and whenever it is drawn.
///
/// The method is Fisher and Yates's, from the last place down, on numbers of SplitMix64 (Steele, Lea, Flood 2014) that begins with the
/// seed; the place is the number's remainder.
pub(super) fn shuffle<T>(tables: &mut [T], seed: u32) {
    let mut state = u64::from(seed);
    for place in (1..tables.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        tables.swap(place, (number % (place as u64 + 1)) as usize);
    }
}

/// Cuts `tables` into rows of some fifty, or of as many as have `bytes_max` bytes together.
pub(super) fn batches(
    tables: Vec<TableName>,
    bytes_max: u64,
    bytes_of: impl Fn(&TableName) -> u64,
) -> Vec<Vec<TableName>> {
    let mut batches: Vec<Vec<TableName>> = Vec::new();
    let mut room = 0;
    for table in tables {
        let bytes = bytes_of(&table);
        match batches.last_mut().filter(|batch| batch.len() < BATCH_TABLES_MAX && bytes <= room) {
            Some(batch) => {
                room -= bytes;
                batch.push(table);
            }
            None => {
                room = bytes_max.saturating_sub(bytes);
                batches.push(vec![table]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_sample_for_ever() {
        let drawn = |seed| {
            let mut numbers: Vec<u32> = (0..10).collect();
            shuffle(&mut numbers, seed);
            numbers
        };
        // Worked out by hand with another program.
        assert_eq!(drawn(4711), [2, 1, 7, 5, 4, 0, 6, 9, 8, 3]);
        assert_ne!(drawn(4711), drawn(4712));
    }

    proptest! {
        #[test]
        fn every_table_is_in_one_batch_and_none_is_larger_than_it_may_be(
            sizes in prop::collection::vec(0u64..500, 0..300), seed: u32, bytes_max in 1u64..2000,
        ) {
            let name = |number: usize| TableName { schema: "s".to_owned(), table: format!("{number:03}") };
            let mut tables: Vec<TableName> = (0..sizes.len()).map(name).collect();
            shuffle(&mut tables, seed);
            let bytes_of = |table: &TableName| sizes[table.table.parse::<usize>().unwrap()];
            let batches = batches(tables.clone(), bytes_max, bytes_of);
            for batch in &batches {
                let [all, rest] = [&batch[..], &batch[1..]].map(|tables| tables.iter().map(bytes_of).sum::<u64>());
                prop_assert!(rest == 0 || all <= bytes_max);
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_TABLES_MAX);
            }
            prop_assert_eq!(batches.concat(), tables.clone());
            tables.sort();
            prop_assert_eq!(tables, (0..sizes.len()).map(name).collect::<Vec<_>>());
        }
    }
}
