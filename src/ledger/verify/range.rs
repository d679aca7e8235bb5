//! Ranges of ids, which a check runs through one after another.

use std::fmt;

use uuid::Uuid;

/// A range of ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u128,
    last: u128,
}

impl Range {
    /// Every id.
    pub const ALL: Self = Self {
        first: 0,
        last: u128::MAX,
    };

    /// The ids from the first that begins with `from` to the last that begins with `to`. `None`
    /// unless both are hexadecimal digits (hyphens are ignored) and in order.
    #[must_use]
    pub fn of_prefixes(from: Option<&str>, to: Option<&str>) -> Option<Self> {
        let filled = |prefix: Option<&str>, fill: char| {
            let mut digits: String = prefix.unwrap_or("").replace('-', "");
            let fits = digits.len() <= 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
            while fits && digits.len() < 32 {
                digits.push(fill);
            }
            u128::from_str_radix(&digits, 16).ok().filter(|_| fits)
        };
        let (first, last) = (filled(from, '0')?, filled(to, 'f')?);
        (first <= last).then_some(Self { first, last })
    }

    /// The parts of this range, if all ids are divided into `number` parts (a power of two).
    pub(super) fn parts(self, number: u32) -> impl Iterator<Item = Self> {
        let within = u128::MAX >> number.trailing_zeros();
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let first = next?;
            let last = (first | within).min(self.last);
            next = last.checked_add(1).filter(|_| last < self.last);
            Some(Self { first, last })
        })
    }

    /// The first and the last id.
    pub(super) fn ends(self) -> (Uuid, Uuid) {
        (Uuid::from_u128(self.first), Uuid::from_u128(self.last))
    }
}

/// The first digits of the first id, as many as distinguish it from its neighbours.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = format!("{:032x}", self.first);
        let digits = all.trim_end_matches('0').len().max(4);
        f.write_str(&all[..digits])
    }
}

#[cfg(test)]
mod tests;
