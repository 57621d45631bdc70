//! ULIDs: request ids of 26 characters that sort by time, which keeps the daemon's indexes compact.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CHARACTERS: u32 = 26;
const RANDOM_BITS: u32 = 80;

static LAST: Mutex<u128> = Mutex::new(0);

/// A new id, greater than the one before even if the clock goes back.
pub fn new_id() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    *last = if now > *last >> RANDOM_BITS {
        now << RANDOM_BITS | random()
    } else {
        *last + 1
    };
    (0..CHARACTERS)
        .rev()
        .map(|place| ALPHABET[(*last >> (5 * place)) as usize & 31] as char)
        .collect()
}

fn random() -> u128 {
    u128::from_be_bytes(random_bytes()) >> (u128::BITS - RANDOM_BITS)
}

/// Random bytes of the operating system.
pub fn random_bytes<const SIZE: usize>() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).expect("the operating system has a source of random bytes");
    bytes
}
