//! The server's key, and what is sealed with it. Whoever has the key can read every signing secret.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRng;
use sha2::Sha256;

const NONCE_BYTES: usize = 24;

/// 32 random bytes, from which keys for each purpose are derived.
#[derive(Clone)]
pub struct ServerKey([u8; 32]);

impl ServerKey {
    /// Reads a key from its text: 32 bytes in base64.
    ///
    /// # Errors
    ///
    /// The text is not that.
    pub fn parse(text: &str) -> Result<ServerKey, String> {
        let bytes = BASE64_STANDARD.decode(text.trim()).unwrap_or_default();
        let key = bytes.try_into().map_err(|_| {
            "the server key must be 32 bytes in base64, as `openssl rand -base64 32` prints them"
        })?;
        Ok(ServerKey(key))
    }

    /// Reads the key from a file; makes both where there is no such file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> io::Result<ServerKey> {
        match fs::read_to_string(path) {
            Ok(text) => ServerKey::parse(&text)
                .map_err(|err| io::Error::other(format!("{}: {err}", path.display()))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let key = random();
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                writeln!(file, "{}", BASE64_STANDARD.encode(key))?;
                file.sync_all()?;
                Ok(ServerKey(key))
            }
            Err(err) => Err(io::Error::new(err.kind(), format!("{}: {err}", path.display()))),
        }
    }

    /// A number by which it can be told that a store belongs to this key, and from which nothing of it can be
    /// learnt.
    pub fn check(&self) -> i64 {
        let key = self.derive("whose store it is");
        i64::from_be_bytes(key[..8].try_into().expect("a key has more than eight bytes"))
    }

    /// A key for one purpose, from which nothing can be learnt about the others.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes any key");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Encrypts a secret. `owner` is whose it is: it cannot be opened as somebody else's.
    pub fn seal(&self, owner: &[u8], secret: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = random();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: secret, aad: owner })
            .expect("a short text can be encrypted");
        [&nonce[..], &sealed].concat()
    }

    /// What was sealed for this owner; none where it was not, or not with this key.
    pub fn open_sealed(&self, owner: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: owner }).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.derive("secrets at rest").into())
    }
}

/// A sentence that warns of what others may do with a file; none where they may do nothing, or there is no file.
pub fn open_to_others(path: &Path) -> Option<String> {
    let mode = fs::symlink_metadata(path).ok()?.mode();
    let what = if mode & 0o022 != 0 { "write to" } else { "read" };
    let path = path.display();
    (mode & 0o066 != 0).then(|| {
        format!("other users of this machine may {what} `{path}`; `chmod 600` keeps them from it")
    })
}

/// Bytes that nobody can guess.
///
/// # Panics
///
/// The system has no randomness to give: nothing can be kept secret then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("the system has random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_for_us_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = ServerKey::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ServerKey::open(&path).unwrap().0, key.0);
        fs::write(&path, "short").unwrap();
        assert!(ServerKey::open(&path).is_err());
    }

    #[test]
    fn a_sealed_secret_opens_for_its_owner_alone() {
        let key = ServerKey(random());
        let sealed = key.seal(b"owner", b"secret");
        assert_eq!(key.open_sealed(b"owner", &sealed).unwrap(), b"secret");
        assert_eq!(key.open_sealed(b"other", &sealed), None);
        assert_eq!(ServerKey(random()).open_sealed(b"owner", &sealed), None);
        assert_eq!(key.open_sealed(b"owner", b"x"), None);
    }
}
