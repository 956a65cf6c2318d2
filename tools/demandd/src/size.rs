// SPDX-License-Identifier: GPL-2.0
//! Sizes as people write them.

/// Reads a size in bytes: a decimal number, perhaps with one of K, M, G and T behind it, which are powers of 1024.
pub fn parse(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()? {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text);
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn suffixes_are_powers_of_1024() {
        for (text, size) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("64K", Some(65_536)),
            ("1M", Some(1_048_576)),
            ("3G", Some(3_221_225_472)),
            ("16777215T", Some(18_446_742_974_197_923_840)),
            ("16777216T", None),
            ("", None),
            ("K", None),
            ("1KM", None),
            ("1.5M", None),
            ("-1", None),
        ] {
            assert_eq!(parse(text), size, "{text:?}");
        }
    }
}
