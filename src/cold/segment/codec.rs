//! The numbers of an index: LEB128 varints, zigzag for signed ones, and a reader that trusts nothing.

use crate::model::{LevelSet, Timestamp};

use super::extent::TsRange;

/// Bytes that are not what this format says; the caller knows of which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub &'static str);

pub(super) type Decoded<T> = Result<T, Malformed>;

pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, (value << 1 ^ value >> 63) as u64);
}

/// A length and that many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A level set in 7 bits, and in the eighth whether a range of timestamps exists.
pub(super) fn level_byte(levels: LevelSet, ts: Option<TsRange>) -> u8 {
    (levels.bits() & 0x7F) as u8 | u8::from(ts.is_some()) << 7
}

pub(super) fn split_level_byte(byte: u8) -> (LevelSet, bool) {
    (LevelSet::stored(i64::from(byte)), byte & 0x80 != 0)
}

/// A range as the distance of its start from `base` and its length, both in nanoseconds.
///
/// The arithmetic wraps, so that any two timestamps are encodable.
pub(super) fn put_ts(out: &mut Vec<u8>, base: i64, ts: TsRange) {
    put_i64(out, ts.min().nanos().wrapping_sub(base));
    put_u64(out, ts.max().nanos().wrapping_sub(ts.min().nanos()) as u64);
}

/// Takes values from the front of untrusted bytes. Never allocates by what they say.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return Err(Malformed("a number has more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number does not end"))
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        self.u64()?.try_into().map_err(|_| Malformed("a number has more than 32 bits"))
    }

    pub fn i64(&mut self) -> Decoded<i64> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn ts(&mut self, base: i64) -> Decoded<TsRange> {
        let min = base.wrapping_add(self.i64()?);
        let max = min.wrapping_add(self.u64()? as i64);
        if max < min {
            return Err(Malformed("a range of timestamps ends before it starts"));
        }
        Ok(TsRange::new(Timestamp::from_nanos(min), Timestamp::from_nanos(max)))
    }

    pub fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed("the bytes end too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed("the bytes end too early"))
    }

    /// What [`put_bytes`] wrote, as text.
    pub fn text(&mut self) -> Decoded<&'a str> {
        let len = usize::try_from(self.u64()?).map_err(|_| Malformed("a length is too large"))?;
        text(self.take(len)?)
    }

    /// How many items follow of at least `least_bytes` each: never more than there are bytes for.
    pub fn count(&mut self, least_bytes: usize) -> Decoded<usize> {
        let count = usize::try_from(self.u64()?).map_err(|_| Malformed("a count is too large"))?;
        match count.checked_mul(least_bytes) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(Malformed("a count is larger than its bytes allow")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All bytes must have been taken.
    pub fn end(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

pub(super) fn text(bytes: &[u8]) -> Decoded<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(a: u64, b: i64, min: i64, max: i64, base: i64) {
            let ts = TsRange::new(Timestamp::from_nanos(min.min(max)), Timestamp::from_nanos(min.max(max)));
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            put_ts(&mut out, base, ts);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.u64(), Ok(a));
            prop_assert_eq!(cursor.i64(), Ok(b));
            prop_assert_eq!(cursor.ts(base), Ok(ts));
            prop_assert_eq!(cursor.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        assert!(Cursor::new(&[0xFF; 9]).u64().is_err());
        assert!(Cursor::new(&[0xFF; 10]).u64().is_err());
        let mut most = vec![0xFF; 9];
        most.push(1);
        assert_eq!(Cursor::new(&most).u64(), Ok(u64::MAX));
        assert!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).u32().is_err());
        assert!(Cursor::new(&[3, 0, 0]).count(1).is_err());
        assert!(Cursor::new(&[5, b'a']).text().is_err());
    }
}
