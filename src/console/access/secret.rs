//! Passwords and tokens: made, hashed, compared.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt;
use sha2::{Digest, Sha256};

/// 9 MiB, four passes, one lane: one of OWASP's equal choices, the one that takes the least memory from the stream.
const MEMORY_KIB: u32 = 9 * 1024;
const PASSES: u32 = 4;
/// Letters and digits that nobody takes for another one.
const PLAIN: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Shortest password that somebody may choose.
pub const PASSWORD_CHARACTERS_MIN: usize = 12;
/// Longer ones would only cost time.
pub const PASSWORD_BYTES_MAX: usize = 1024;

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// A password's hash, with its parameters and a salt of its own. Takes tens of milliseconds.
pub fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::encode_b64(&rand::rng().random::<[u8; 16]>());
    let hashed = salt.and_then(|salt| argon2().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()));
    hashed.map_err(|e| anyhow::anyhow!("a password could not be hashed: {e}"))
}

/// Whether a password has this hash. Takes as long as [`hash`], also for a hash that is none.
pub fn fits(password: &str, hash: Option<&str>) -> bool {
    // Of nobody: an unknown name must not be answered faster than a wrong password.
    const NOBODY: &str =
        "$argon2id$v=19$m=9216,t=4,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    argon2().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

/// A password that nobody guesses and somebody can type: 99 bits in four groups.
pub fn new_password() -> String {
    let mut rng = rand::rng();
    let mut group = || (0..5).map(|_| char::from(PLAIN[rng.random_range(0..PLAIN.len())])).collect::<String>();
    [group(), group(), group(), group()].join("-")
}

/// 256 random bits as text, for sessions and tokens.
pub fn new_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>())
}

/// What is kept of a token: who reads the store or the memory cannot use it.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares without telling by its time where two texts differ.
pub fn same(one: &str, other: &str) -> bool {
    let (one, other) = (digest(one), digest(other));
    one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_alone() {
        let hashed = hash("correct horse battery").unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=9216,t=4,p=1$"), "{hashed}");
        assert!(fits("correct horse battery", Some(&hashed)));
        assert!(!fits("correct horse batterz", Some(&hashed)));
        assert!(!fits("", None));
        assert!(!fits("x", Some("no hash")));
        assert_ne!(hash("correct horse battery").unwrap(), hashed, "each has a salt of its own");
    }

    #[test]
    fn made_secrets_differ() {
        let password = new_password();
        assert_eq!(password.len(), 23);
        assert_ne!(password, new_password());
        assert_eq!(new_token().len(), 43);
        assert!(same("a", "a") && !same("a", "b"));
    }
}
