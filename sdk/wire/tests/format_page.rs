//! FORMAT.md says what the code does, where that can be checked: codes, types, limits, CDDL.

use std::collections::BTreeSet;

use sealpost_wire::limits;
use sealpost_wire::problem::ProblemCode;

const PAGE: &str = include_str!("../FORMAT.md");
const CDDL: &str = include_str!("../sealpost.cddl");

/// Every file that gives an error a code. `sealpost-seal` and `sealpost-open` have theirs on the same page.
const SOURCES: [&str; 8] = [
    include_str!("../src/error.rs"),
    include_str!("../src/key_package.rs"),
    include_str!("../src/padding.rs"),
    include_str!("../src/payload.rs"),
    include_str!("../src/http_signature.rs"),
    include_str!("../../seal/src/error.rs"),
    include_str!("../../open/src/error.rs"),
    include_str!("../../open/src/replay.rs"),
];

#[test]
fn every_code_stands_on_the_page_and_every_code_on_the_page_is_one() {
    let mut codes: BTreeSet<&str> = SOURCES.iter().flat_map(|source| codes_in(source)).collect();
    assert!(codes.len() > 40, "{codes:?}");
    codes.extend(ProblemCode::ALL.iter().map(|code| code.code()));
    let tables = section("## 14. Codes");
    let listed: BTreeSet<&str> = tables
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
        .collect();
    assert_eq!(codes, listed);
}

#[test]
fn the_table_of_problems_is_the_one_in_the_code() {
    for code in ProblemCode::ALL {
        let row = format!("| `{}` | {} | {} |", code.code(), code.status(), code.title());
        assert!(PAGE.contains(&row), "{row}");
    }
}

#[test]
fn codes_in_the_text_are_codes() {
    let tables = section("## 14. Codes");
    let text = PAGE.replace(tables, "");
    // Names in code style that have an underscore and are no codes.
    let others = [
        "external_aad",
        "expires_at",
        "open_until",
        "seal_until",
        "look_up",
        "private_key_jwt",
        "server_time",
    ];
    for word in text.split('`').skip(1).step_by(2) {
        let plain = word.contains('_') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if plain && !others.contains(&word) {
            assert!(tables.contains(&format!("| `{word}` |")), "{word}");
        }
    }
}

#[test]
fn every_type_stands_on_the_page() {
    let source = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect::<String>();
    let types = |text: &str| -> BTreeSet<String> {
        text.split(['"', '`'])
            .filter(|word| word.starts_with("sealpost-") && word.ends_with("+cose"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(types(&source).len(), 16);
    assert_eq!(types(section("## 2. Keys and signatures")), types(&source));
    assert_eq!(types(CDDL), types(&source));
}

#[test]
fn the_limits_are_those_of_the_code() {
    for (structure, bytes) in [
        ("sealed message", limits::SEALED_BYTES_MAX),
        ("signed message", limits::SIGNED_BYTES_MAX),
        ("certificate", limits::CERTIFICATE_BYTES_MAX),
        ("record", limits::RECORD_BYTES_MAX),
        ("enrolment", limits::ENROLMENT_BYTES_MAX),
        ("admission", limits::ADMISSION_BYTES_MAX),
        ("prekey leaf", limits::PREKEY_LEAF_BYTES_MAX),
        ("prekey batch", limits::PREKEY_BATCH_BYTES_MAX),
        ("tenant status", limits::STATUS_BYTES_MAX),
        ("receipt, unopenable", limits::RECEIPT_BYTES_MAX),
        ("wipe order", limits::ORDER_BYTES_MAX),
        ("device set", limits::DEVICE_SET_BYTES_MAX),
        ("mailbox statement", limits::MAILBOX_STATEMENT_BYTES_MAX),
        ("member credential", limits::MEMBER_CREDENTIAL_BYTES_MAX),
    ] {
        assert!(PAGE.contains(&format!("| {structure} | {bytes} |")), "{structure}: {bytes}");
    }
    for (drawn, limit) in [
        ("7 => tstr .size (1..{}),                  ; category", limits::CATEGORY_BYTES_MAX),
        ("9 => {1*{} language => words}", limits::LANGUAGES_MAX),
        ("10 => [1*{} part]", limits::PARTS_MAX),
        ("11 => [1*{} reply]", limits::REPLIES_MAX),
        ("12 => [1*{} attachment]", limits::ATTACHMENTS_MAX),
        ("[A-Za-z0-9-]{1,{}}", limits::LANGUAGE_BYTES_MAX),
        ("words = {1 => tstr .size (1..{}),", limits::TITLE_BYTES_MAX),
        ("2 => tstr .size (1..{})}                ; title, body", limits::BODY_BYTES_MAX),
        ("part = {1 => tstr .size (1..{}),", limits::MEDIA_TYPE_BYTES_MAX),
        ("2 => bstr .size (0..{})}", limits::PART_BYTES_MAX),
        ("reply = {1 => tstr .size (1..{}),", limits::REPLY_CODE_BYTES_MAX),
        ("7 => tstr .size (1..{}),   ; URL", limits::URL_BYTES_MAX),
        ("4 => [0*{} [id, 0..1]]", limits::STATUS_ENTRIES_MAX),
        ("5 => [0*{} bstr .cbor record]", limits::DEVICES_PER_SET_MAX),
        ("6 => [0*{} id]", limits::REVOKED_PER_SET_MAX),
        ("4 => 1..{},                ; how many leaves", limits::PREKEYS_PER_BATCH_MAX),
        ("? 7 => [1*{} bstr .cbor device-set]", limits::MLS_SETS_MAX),
        ("1 => bstr .size (1..{}),              ; MLSMessage", limits::SIGNED_BYTES_MAX),
        ("sequence: 0..{},", usize::try_from(limits::SLOT_SEQUENCE_MAX).unwrap()),
        ("name = tstr .regexp \"[a-z0-9][a-z0-9.-]{0,{}}\"", limits::NAME_BYTES_MAX - 1),
    ] {
        let drawn = drawn.replacen("{}", &limit.to_string(), 1);
        assert!(CDDL.contains(&drawn), "{drawn}");
    }
    let seconds = limits::MESSAGE_LIFETIME_SECONDS_MAX;
    for (said, number) in [
        (format!("Depth {}: `too_deep`", limits::CBOR_DEPTH_MAX + 1), limits::CBOR_DEPTH_MAX),
        (format!("The {}th: `too_many_items`", limits::CBOR_ITEMS_MAX + 1), limits::CBOR_ITEMS_MAX),
        (format!("the larger of {} and Padmé", limits::PADDED_BYTES_MIN), limits::PADDED_BYTES_MIN),
    ] {
        assert!(PAGE.contains(&said), "{said}: {number}");
    }
    assert!(PAGE.contains(&format!("expires_at <= created + {seconds} ")));
    for said in [
        format!("`KeyPackage` of RFC 9420 section 10, at most {} bytes", limits::KEY_PACKAGE_BYTES_MAX),
        format!("more than {} bytes `too_large`", limits::KEY_PACKAGE_BYTES_MAX),
        format!("at most {} in a list", limits::KEY_PACKAGE_EXTENSIONS_MAX),
        format!("not_before + {},", limits::KEY_PACKAGE_LIFETIME_SECONDS_MAX),
        format!("not_before <= now + {}", limits::CLOCK_SKEW_SECONDS_MAX),
    ] {
        assert!(PAGE.contains(&said), "{said}");
    }
    assert!(PAGE.contains(&format!("now <= expires_at + {}", limits::CLOCK_SKEW_SECONDS_MAX)));
    assert!(PAGE.contains(&format!("|now - created| <= {}", limits::REQUEST_WINDOW_SECONDS)));
}

#[test]
fn the_cddl_is_what_the_page_quotes() {
    let quoted: Vec<&str> =
        PAGE.split("```cddl\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let (_, rules) = CDDL.split_once("\n\n").unwrap();
    assert_eq!(rules, quoted.join("\n"));
}

/// The codes that a `match` in `source` gives.
fn codes_in(source: &'static str) -> impl Iterator<Item = &'static str> {
    source.lines().filter_map(|line| {
        let code = line.trim().strip_prefix("Self::")?.split_once("=> \"")?.1.strip_suffix("\",")?;
        code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(code)
    })
}

/// The page from `heading` to the next section.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(heading).unwrap();
    let rest = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    assert!(rest.len() > 100, "{heading}");
    rest
}
