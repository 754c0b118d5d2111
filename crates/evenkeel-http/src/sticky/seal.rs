//! The value of a cookie: an endpoint's address that cannot be forged, readable or not.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use evenkeel_core::endpoint::Address;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A longer value was not written here.
const MAX_VALUE: usize = 512;

/// The fewest bytes of a secret.
const MIN_SECRET: usize = 16;

/// How many bytes of a signature are kept: 128 bits.
const SIGNATURE_LENGTH: usize = 16;

const NONCE_LENGTH: usize = 24;

/// How addresses are written into cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `ADDRESS.SIGNATURE`, both in base64.
    Signed,
    /// Encrypted, in base64.
    Opaque,
}

/// The keys derived from one secret.
#[derive(Clone)]
pub(super) struct Seal {
    form: Form,
    mac: Hmac<Sha256>,
    cipher: XChaCha20Poly1305,
}

impl Seal {
    /// # Panics
    /// If the secret is shorter than 16 bytes.
    pub(super) fn new(form: Form, secret: &[u8]) -> Self {
        assert!(MIN_SECRET <= secret.len(), "a secret has {MIN_SECRET} bytes at least");
        let mac =
            <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(secret).expect("any length will do");
        // From the same secret, but no signature can equal this key: signatures begin with another word.
        let key = mac.clone().chain_update(b"key\0").finalize().into_bytes();
        Self { form, mac, cipher: XChaCha20Poly1305::new(&key) }
    }

    /// The value of the cookie `name` that stands for `address`.
    pub(super) fn write(&self, name: &str, address: &Address) -> String {
        let text = address.to_string();
        match self.form {
            Form::Signed => {
                let signature = self.mac(b"sign\0", name, &text).finalize().into_bytes();
                let mut value = URL_SAFE_NO_PAD.encode(&text);
                value.push('.');
                URL_SAFE_NO_PAD.encode_string(&signature[..SIGNATURE_LENGTH], &mut value);
                value
            }
            Form::Opaque => {
                // Derived from the plain text, as in SIV (RFC 5297): it repeats only for the same text.
                let nonce = self.mac(b"nonce\0", name, &text).finalize().into_bytes();
                let nonce: [u8; NONCE_LENGTH] =
                    nonce[..NONCE_LENGTH].try_into().expect("a hash is longer");
                let payload = Payload { msg: text.as_bytes(), aad: name.as_bytes() };
                let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
                let sealed = sealed.expect("an address is not gigabytes long");
                URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
            }
        }
    }

    /// The address in a value of the cookie `name`, if this secret wrote it.
    pub(super) fn read(&self, name: &str, value: &[u8]) -> Option<Address> {
        if MAX_VALUE < value.len() {
            return None;
        }
        let text = match self.form {
            Form::Signed => {
                let dot = value.iter().position(|&byte| byte == b'.')?;
                let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&value[..dot]).ok()?).ok()?;
                let signature = URL_SAFE_NO_PAD.decode(&value[dot + 1..]).ok()?;
                if signature.len() != SIGNATURE_LENGTH {
                    return None;
                }
                self.mac(b"sign\0", name, &text).verify_truncated_left(&signature).ok()?;
                text
            }
            Form::Opaque => {
                let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
                let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LENGTH>()?;
                let payload = Payload { msg: sealed, aad: name.as_bytes() };
                let text = self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
                String::from_utf8(text).ok()?
            }
        };
        text.parse().ok()
    }

    fn mac(&self, purpose: &[u8], name: &str, text: &str) -> Hmac<Sha256> {
        let mac = self.mac.clone().chain_update(purpose);
        // No name contains a zero byte.
        mac.chain_update(name).chain_update(b"\0").chain_update(text)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("form", &self.form).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef";

    fn seals() -> [Seal; 2] {
        [Seal::new(Form::Signed, SECRET), Seal::new(Form::Opaque, SECRET)]
    }

    #[test]
    fn every_kind_of_address_is_read_back() {
        for seal in seals() {
            for text in ["10.0.0.1:80", "[2001:db8::1]:443", "a-b.internal:1", "unix:/run/a.sock"] {
                let address: Address = text.parse().unwrap();
                let value = seal.write("sid", &address);
                assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
                assert_eq!(seal.read("sid", value.as_bytes()), Some(address));
            }
        }
    }

    #[test]
    fn a_value_with_any_change_is_refused() {
        for seal in seals() {
            let value = seal.write("sid", &"10.0.0.1:80".parse().unwrap());
            assert_eq!(seal.read("other", value.as_bytes()), None, "another cookie's value");
            for index in 0..value.len() {
                let mut changed = value.clone().into_bytes();
                changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
                assert_eq!(seal.read("sid", &changed), None, "{index} of {value}");
                assert_eq!(seal.read("sid", &value.as_bytes()[..index]), None);
                assert_eq!(seal.read("sid", &value.as_bytes()[index + 1..]), None);
            }
            assert_eq!(seal.read("sid", &[b'A'; 10_000]), None);
        }
    }

    #[test]
    fn a_value_of_another_secret_or_form_is_not_read() {
        let [signed, opaque] = seals();
        let address: Address = "10.0.0.1:80".parse().unwrap();
        let other = Seal::new(Form::Signed, b"another secret of some length");
        assert_eq!(other.read("sid", signed.write("sid", &address).as_bytes()), None);
        assert_eq!(opaque.read("sid", signed.write("sid", &address).as_bytes()), None);
        assert_eq!(signed.read("sid", opaque.write("sid", &address).as_bytes()), None);
    }

    #[test]
    fn an_opaque_value_does_not_show_the_address() {
        let value = seals()[1].write("sid", &"backend.internal:80".parse().unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"backend"));
    }
}
