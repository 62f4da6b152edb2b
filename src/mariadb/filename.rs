//! Names of schemas and tables as files bear them, and back.
//!
//! ASCII letters, digits and `_` stand for themselves. Letters of the European alphabets are `@` and two characters, chosen
//! so that case can be folded in them; any other character is `@` and its number in four hexadecimal digits. Characters
//! beyond the basic plane cannot be in a name.
//!
//! Source: MariaDB `strings/ctype-utf8.c`, `my_mb_wc_filename` and `my_wc_mb_filename`; the table is what a 10.11.19 server
//! answers for all codes.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Begins whatever is not written as itself.
const ESCAPE: u8 = b'@';
/// First of the 80 characters of which a code has two.
const DIGIT_FIRST: u8 = b'0';
/// How many there are.
const DIGITS: u16 = 80;
/// The server's own prefix for names that are no encoded ones, as of directories that somebody made by hand.
pub const RAW_PREFIX: &str = "#mysql50#";

/// Runs of codes: the first, its character, how many, and the differences from one to the next of codes and characters.
#[rustfmt::skip]
const RUNS: [(u16, u16, u8, u8, i16); 220] = [
    (23, 192, 20, 1, 1),
    (55, 224, 20, 1, 1),
    (103, 212, 6, 2, 2),
    (104, 213, 2, 80, 61),
    (108, 217, 3, 2, 2),
    (114, 376, 2, 1, -120),
    (116, 258, 7, 1, 2),
    (135, 244, 6, 2, 2),
    (136, 245, 2, 2, -22),
    (140, 249, 4, 2, 2),
    (147, 257, 8, 1, 2),
    (183, 272, 8, 2, 4),
    (186, 278, 9, 2, 4),
    (201, 308, 2, 80, 38),
    (215, 273, 20, 1, 2),
    (264, 313, 8, 1, 2),
    (273, 330, 8, 1, 2),
    (282, 348, 1, 1, 1),
    (295, 312, 9, 1, 2),
    (304, 329, 11, 1, 2),
    (343, 350, 13, 1, 2),
    (356, 377, 3, 1, 2),
    (375, 351, 13, 1, 2),
    (388, 378, 3, 1, 2),
    (391, 383, 2, 160, 573),
    (473, 912, 2, 80, 46),
    (503, 902, 2, 1, 2),
    (505, 905, 2, 1, 1),
    (508, 913, 8, 2, 2),
    (511, 916, 2, 2, 2),
    (519, 924, 2, 2, 2),
    (535, 940, 16, 1, 1),
    (552, 957, 2, 2, 2),
    (584, 929, 2, 80, 5),
    (587, 932, 2, 1, 1),
    (590, 935, 5, 1, 1),
    (595, 908, 3, 2, 3),
    (596, 910, 2, 80, 92),
    (600, 920, 2, 1, 58),
    (602, 979, 1, 1, 1),
    (615, 960, 15, 1, 1),
    (631, 976, 2, 1, 1),
    (663, 980, 2, 2, -52),
    (668, 986, 8, 1, 2),
    (677, 1004, 2, 1, 2),
    (679, 922, 2, 2, 9),
    (696, 981, 3, 1, 1),
    (699, 985, 12, 1, 2),
    (711, 1008, 4, 1, 1),
    (748, 1021, 3, 1, 1),
    (775, 1013, 2, 1, 1),
    (777, 1016, 2, 1, 3),
    (779, 1020, 1, 1, 1),
    (1297, 9398, 26, 1, 1),
    (1329, 9424, 26, 1, 1),
    (1376, 65313, 26, 80, 1),
    (1840, 1040, 20, 80, 1),
    (1841, 1060, 12, 80, 1),
    (1842, 1032, 8, 80, 1),
    (1843, 1144, 5, 80, 2),
    (1844, 1190, 14, 80, 2),
    (1845, 1229, 2, 1, 39),
    (1848, 1348, 18, 80, 1),
    (1849, 8544, 16, 80, 1),
    (1890, 435, 2, 1, 43),
    (1892, 520, 12, 80, 2),
    (1893, 560, 2, 80, 2),
    (1900, 7680, 20, 80, 2),
    (1901, 7720, 20, 80, 2),
    (1902, 7760, 8, 80, 2),
    (1903, 7800, 15, 80, 2),
    (1904, 7776, 2, 1, 94),
    (1906, 7910, 10, 80, 2),
    (1907, 7944, 8, 80, 1),
    (1908, 7978, 6, 80, 1),
    (1910, 8044, 4, 80, 1),
    (1911, 8072, 8, 80, 1),
    (1912, 8108, 4, 80, 1),
    (1926, 1270, 2, 1, 59),
    (1969, 386, 2, 1, 51),
    (1971, 480, 8, 80, 2),
    (1976, 413, 1, 1, 1),
    (1985, 7872, 19, 80, 2),
    (2005, 1232, 18, 80, 2),
    (2006, 1272, 2, 1, 58),
    (2049, 388, 2, 1, 52),
    (2087, 1331, 17, 80, 1),
    (2129, 391, 2, 80, 4),
    (2135, 403, 2, 2, 27),
    (2216, 415, 2, 81, 18),
    (2230, 8122, 2, 2, -2),
    (2304, 7840, 15, 80, 2),
    (2309, 8025, 4, 160, 2),
    (2310, 8123, 2, 2, -2),
    (2323, 1162, 14, 80, 2),
    (2369, 401, 2, 80, 101),
    (2375, 404, 2, 2, 30),
    (2388, 7992, 8, 80, 1),
    (2390, 8136, 4, 80, 1),
    (2450, 444, 2, 80, 8),
    (2472, 8124, 2, 1, 44),
    (2482, 1120, 12, 80, 2),
    (2529, 408, 2, 80, 165),
    (2533, 570, 2, 80, 1),
    (2547, 7960, 6, 80, 1),
    (2551, 8088, 8, 80, 1),
    (2553, 8169, 1, 1, 1),
    (2566, 1280, 8, 80, 2),
    (2610, 455, 3, 80, 3),
    (2622, 7778, 11, 80, 2),
    (2691, 497, 2, 2, 77),
    (2694, 385, 2, 80, 5),
    (2710, 8154, 2, 80, 1),
    (2769, 544, 2, 2, -44),
    (2775, 407, 2, 80, -1),
    (2801, 1024, 8, 80, 1),
    (2849, 416, 3, 80, 2),
    (2850, 463, 7, 80, 2),
    (2851, 504, 8, 80, 2),
    (2870, 8184, 2, 80, 1),
    (2873, 8172, 1, 1, 1),
    (2932, 546, 7, 80, 2),
    (2934, 393, 2, 80, 1),
    (2937, 439, 2, 160, 138),
    (2952, 8140, 1, 1, 1),
    (2964, 1217, 6, 80, 2),
    (3028, 8008, 6, 80, 1),
    (3030, 8170, 2, 80, 1),
    (3089, 423, 1, 1, 1),
    (3096, 422, 1, 1, 1),
    (3174, 399, 2, 160, 1),
    (3189, 8040, 4, 80, 1),
    (3190, 8186, 2, 1, -82),
    (3270, 8187, 2, 1, -82),
    (3329, 428, 2, 80, 3),
    (3335, 412, 2, 1, 13),
    (3347, 7976, 2, 80, 1),
    (3351, 8106, 2, 1, 46),
    (3353, 8188, 1, 1, 1),
    (3410, 398, 1, 1, 1),
    (3431, 8107, 2, 1, 46),
    (3936, 65345, 26, 80, 1),
    (4400, 1072, 20, 80, 1),
    (4401, 1092, 20, 80, 1),
    (4402, 1112, 8, 80, 1),
    (4403, 1145, 5, 80, 2),
    (4404, 1191, 13, 80, 2),
    (4405, 1230, 2, 1, 39),
    (4408, 1396, 18, 80, 1),
    (4409, 8560, 16, 80, 1),
    (4449, 384, 2, 1, 52),
    (4451, 479, 9, 80, 2),
    (4452, 521, 20, 80, 2),
    (4453, 561, 2, 2, 44),
    (4456, 625, 20, 80, 1),
    (4457, 645, 20, 80, 1),
    (4458, 665, 20, 80, 1),
    (4459, 685, 3, 80, 1),
    (4460, 7681, 20, 80, 2),
    (4461, 7721, 20, 80, 2),
    (4462, 7761, 20, 80, 2),
    (4463, 7801, 15, 80, 2),
    (4464, 7835, 2, 1, 36),
    (4466, 7911, 10, 80, 2),
    (4467, 7936, 8, 80, 1),
    (4468, 7970, 6, 80, 1),
    (4470, 8036, 4, 80, 1),
    (4471, 8064, 8, 80, 1),
    (4472, 8100, 4, 80, 1),
    (4473, 8146, 2, 80, 1),
    (4486, 1271, 2, 1, 106),
    (4529, 387, 3, 160, 5),
    (4530, 438, 2, 80, 3),
    (4533, 563, 7, 80, 1),
    (4535, 606, 19, 80, 1),
    (4545, 7873, 19, 80, 2),
    (4554, 8182, 2, 80, 1),
    (4565, 1233, 18, 80, 2),
    (4566, 1273, 2, 1, 105),
    (4609, 389, 2, 81, 53),
    (4647, 1379, 17, 80, 1),
    (4769, 396, 2, 1, 47),
    (4789, 8016, 8, 80, 1),
    (4790, 8048, 14, 80, 1),
    (4792, 8112, 5, 80, 1),
    (4793, 8150, 2, 80, 1),
    (4864, 7841, 15, 80, 2),
    (4883, 1163, 14, 80, 2),
    (4929, 402, 2, 1, 44),
    (4948, 7984, 8, 80, 1),
    (5009, 405, 2, 1, 40),
    (5014, 592, 13, 80, 1),
    (5033, 8160, 8, 80, 1),
    (5042, 1121, 12, 80, 2),
    (5089, 409, 3, 80, 1),
    (5090, 454, 3, 80, 3),
    (5107, 7952, 6, 80, 1),
    (5111, 8080, 8, 80, 1),
    (5126, 1281, 8, 80, 2),
    (5171, 496, 2, 2, 76),
    (5251, 499, 2, 80, 2),
    (5272, 8118, 2, 80, 1),
    (5329, 414, 3, 160, 5),
    (5330, 462, 8, 80, 2),
    (5333, 575, 2, 80, 1),
    (5409, 417, 2, 2, 88),
    (5432, 8130, 3, 80, 1),
    (5491, 507, 7, 80, 2),
    (5524, 1218, 6, 80, 2),
    (5569, 421, 2, 160, 5),
    (5588, 8000, 6, 80, 1),
    (5663, 7830, 5, 80, 1),
    (5749, 8032, 4, 80, 1),
    (5751, 8096, 4, 80, 1),
    (5752, 8134, 2, 80, 1),
    (5809, 427, 2, 80, 2),
    (5833, 8178, 3, 80, 1),
    (5907, 7968, 2, 80, 1),
    (5912, 8144, 2, 80, 1),
    (5969, 432, 2, 1, 45),
];

static CHARACTERS: LazyLock<HashMap<u16, char>> = LazyLock::new(|| {
    let run = |&(code, first, count, stride, step): &(u16, u16, u8, u8, i16)| {
        (0..u16::from(count)).filter_map(move |place| {
            let character = i32::from(first) + i32::from(step) * i32::from(place);
            Some((code + u16::from(stride) * place, char::from_u32(u32::try_from(character).ok()?)?))
        })
    };
    RUNS.iter().flat_map(run).collect()
});

/// Written by its number all the same; its code is only read.
const NUMBERED: char = '\u{1ff4}';

static CODES: LazyLock<HashMap<char, u16>> = LazyLock::new(|| {
    let codes = CHARACTERS.iter().map(|(code, character)| (*character, *code));
    codes.filter(|(character, _)| *character != NUMBERED).collect()
});

/// The name that a file's name stands for; nothing when it stands for none.
pub fn decode(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let (mut decoded, mut at) = (String::with_capacity(name.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if is_plain(byte) {
            decoded.push(char::from(byte));
            at += 1;
        } else if byte != ESCAPE {
            return None;
        } else if bytes[at..].starts_with(b"@@@") && at + 3 == bytes.len() {
            // Behind names that Windows keeps for itself, such as `con`.
            at += 3;
        } else if let Some(character) = short(bytes.get(at + 1..at + 3)?) {
            decoded.push(character);
            at += 3;
        } else {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 5)?).ok()?;
            let number = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16));
            decoded.push(char::from_u32(number?.ok()?)?);
            at += 5;
        }
    }
    Some(decoded)
}

/// The name that a file's name stands for, or the raw one as the server shows it.
pub fn shown(name: &str) -> String {
    decode(name).unwrap_or_else(|| format!("{RAW_PREFIX}{name}"))
}

/// The name of the file of a schema or table; nothing when no file can bear it.
pub fn encode(name: &str) -> Option<String> {
    if let Some(raw) = name.strip_prefix(RAW_PREFIX) {
        return (!raw.is_empty() && !raw.contains(['/', '\0'])).then(|| raw.to_owned());
    }
    let mut encoded = String::with_capacity(name.len());
    for character in name.chars() {
        match u8::try_from(character) {
            Ok(byte) if is_plain(byte) => encoded.push(character),
            _ => match CODES.get(&character) {
                Some(code) => {
                    let digit = |number: u16| char::from(DIGIT_FIRST + number as u8);
                    encoded.extend([char::from(ESCAPE), digit(code / DIGITS), digit(code % DIGITS)]);
                }
                None => encoded += &format!("@{:04x}", u16::try_from(u32::from(character)).ok()?),
            },
        }
    }
    (!encoded.is_empty()).then_some(encoded)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn short(digits: &[u8]) -> Option<char> {
    let digit = |byte: u8| byte.checked_sub(DIGIT_FIRST).map(u16::from).filter(|digit| *digit < DIGITS);
    let code = digit(digits[0])? * DIGITS + digit(digits[1])?;
    CHARACTERS.get(&code).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_server_gives_its_files() {
        for (file, name) in [
            ("o@0020rder@0024@1o", "o rder$ü"),
            ("sp@0020ace@0020@0p", "sp ace é"),
            ("a@002fb@002ec@0023d", "a/b.c#d"),
            ("x@0024host_summary", "x$host_summary"),
            ("plain_09", "plain_09"),
        ] {
            assert_eq!(decode(file).as_deref(), Some(name));
            assert_eq!(encode(name).as_deref(), Some(file));
        }
    }

    #[test]
    fn what_is_no_encoded_name_is_shown_as_the_server_shows_it() {
        for raw in ["lost+found", "#sql-ib21", "a@", "a@00", "a@zz zz", "a.b", "a@+123"] {
            assert_eq!(decode(raw), None, "{raw}");
            assert_eq!(shown(raw), format!("#mysql50#{raw}"));
            assert_eq!(encode(&shown(raw)).as_deref(), Some(raw));
        }
        assert_eq!(encode("#mysql50#../x"), None);
        assert_eq!(encode("😀"), None);
    }

    proptest::proptest! {
        #[test]
        fn every_name_comes_back(name in "[\\x01-\u{d7ff}\u{e000}-\u{ffff}]{1,20}") {
            proptest::prop_assume!(!name.starts_with(RAW_PREFIX));
            let encoded = encode(&name).unwrap();
            assert!(encoded.bytes().all(|byte| is_plain(byte) || byte == ESCAPE));
            assert_eq!(decode(&encoded), Some(name));
        }

        #[test]
        fn any_file_name_is_read_without_a_panic(name in "\\PC*", escapes in "(@[0-9a-f@z~]{0,4}){0,5}") {
            decode(&name);
            decode(&escapes);
        }
    }
}
