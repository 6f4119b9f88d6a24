//! An xor filter: which keys a set holds, at five bits each, wrong once in 16 times and only by saying yes.
//!
//! Graf and Lemire, *Xor Filters: Faster and Smaller Than Bloom and Cuckoo Filters* (2020). A Bloom
//! filter needs 5.8 bits for as few wrong answers. A key has one place in each of three blocks; its
//! fingerprint of four bits is the xor of what stands there. A text has several keys as a rule, and each
//! of them must be wrong: eight bits would double what filters cost in the bucket for texts of one key.

/// A filter over some keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct XorFilter {
    /// Which of the hash functions worked: most sets need the first.
    pub seed: u8,
    /// Three blocks of the same even number of places, two of them a byte, the first in its low half.
    pub fingerprints: Vec<u8>,
}

/// One try fails in a few of a hundred cases; all of them never do.
const MAX_TRIES: u8 = 100;

impl XorFilter {
    /// `keys` must differ from each other. `None` where no seed works, which is not to be expected.
    pub fn build(keys: &[u64]) -> Option<Self> {
        let block = block_len(keys.len());
        (0..MAX_TRIES).find_map(|seed| {
            let order = peel(keys, seed, block)?;
            let mut filter = Self { seed, fingerprints: vec![0; 3 * block / 2] };
            for (hash, place) in order.into_iter().rev() {
                // What stands at its own place is still 0.
                let missing = fingerprint(hash) ^ sum(&filter.fingerprints, hash, block);
                filter.fingerprints[place / 2] |= missing << shift(place);
            }
            Some(filter)
        })
    }
}

/// Whether `key` may be among the keys.
pub(super) fn may_hold(seed: u8, fingerprints: &[u8], key: u64) -> bool {
    let block = fingerprints.len() / 3 * 2;
    let hash = hash(key, seed);
    block == 0 || sum(fingerprints, hash, block) == fingerprint(hash)
}

/// 1.25 places for each key and some more: with less than 1.23, few sets can be peeled.
fn block_len(keys: usize) -> usize {
    (32 + keys + keys.div_ceil(4)).div_ceil(3).next_multiple_of(2)
}

/// The xor of what stands at a key's places.
fn sum(fingerprints: &[u8], hash: u64, block: usize) -> u8 {
    places(hash, block).iter().fold(0, |all, at| all ^ fingerprints[at / 2] >> shift(*at)) & 0xF
}

/// Where in its byte a place stands.
fn shift(place: usize) -> usize {
    place % 2 * 4
}

fn hash(key: u64, seed: u8) -> u64 {
    super::grams::rank(key.wrapping_add(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn fingerprint(hash: u64) -> u8 {
    (hash ^ hash >> 32) as u8 & 0xF
}

/// One place in each block: 32 bits of the hash, of three different rotations, scaled to the block.
fn places(hash: u64, block: usize) -> [usize; 3] {
    let scaled = |turn: u32| ((u64::from(hash.rotate_left(turn) as u32) * block as u64) >> 32) as usize;
    [scaled(0), block + scaled(21), 2 * block + scaled(42)]
}

/// The keys' hashes in an order in which each, when its turn comes from behind, has a place of its own.
fn peel(keys: &[u64], seed: u8, block: usize) -> Option<Vec<(u64, usize)>> {
    let mut counts = vec![0u32; 3 * block];
    let mut hashes = vec![0u64; 3 * block];
    for key in keys {
        let hash = hash(*key, seed);
        for at in places(hash, block) {
            counts[at] += 1;
            hashes[at] ^= hash;
        }
    }
    let mut alone: Vec<usize> = (0..counts.len()).filter(|at| counts[*at] == 1).collect();
    let mut order = Vec::with_capacity(keys.len());
    while let Some(place) = alone.pop() {
        if counts[place] != 1 {
            continue;
        }
        let hash = hashes[place];
        order.push((hash, place));
        for at in places(hash, block) {
            counts[at] -= 1;
            hashes[at] ^= hash;
            if counts[at] == 1 {
                alone.push(at);
            }
        }
    }
    (order.len() == keys.len()).then_some(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_costs_five_bits_and_is_seldom_wrong() {
        let keys: Vec<u64> = (0..20_000u64).map(|n| n * n).collect();
        let filter = XorFilter::build(&keys).expect("a filter");
        assert!(filter.fingerprints.len() * 8 <= keys.len() * 51 / 10, "{} bytes", filter.fingerprints.len());
        assert!(keys.iter().all(|key| may_hold(filter.seed, &filter.fingerprints, *key)));
        let wrong = (1..100_000u64).filter(|n| may_hold(filter.seed, &filter.fingerprints, 1 << 50 | n)).count();
        assert!((5_500..7_000).contains(&wrong), "{wrong} of 100,000");
    }

    proptest! {
        #[test]
        fn it_never_says_no_to_a_key(mut keys in prop::collection::vec(any::<u64>(), 0..400)) {
            keys.sort_unstable();
            keys.dedup();
            let filter = XorFilter::build(&keys).expect("a filter");
            for key in keys {
                prop_assert!(may_hold(filter.seed, &filter.fingerprints, key));
            }
        }
    }
}
