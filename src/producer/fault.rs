//! Records that are not as they should be, in shares that the user sets.

use super::event::Decimal;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sound event at its own time.
    Normal,
    /// A sound event with a time [`SHIFT_S`] back.
    Late,
    /// One of the last sound events once more, byte for byte, under the same key.
    Duplicate,
    /// Something that is no event ([`Malformed`]).
    Malformed,
    /// A sound event with a time [`SHIFT_S`] ahead.
    Future,
}

/// How far late and future events are off, in seconds.
pub const SHIFT_S: i64 = 3_600;

impl Kind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Late, Self::Duplicate, Self::Malformed, Self::Future];

    /// The name that summaries use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::Future => "future",
        }
    }
}

/// Shares of all records, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shares {
    /// Of [`Kind::Late`].
    pub late: f64,
    /// Of [`Kind::Duplicate`].
    pub duplicate: f64,
    /// Of [`Kind::Malformed`].
    pub malformed: f64,
    /// Of [`Kind::Future`].
    pub future: f64,
}

/// Decides what the next record is.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// A random number below the first limit is late, else below the second a duplicate, and so on.
    limits: [(u64, Kind); 4],
}

impl Mix {
    /// Checks that every share lies between 0 and 1 and that together they do.
    pub fn new(shares: Shares) -> Result<Self, String> {
        let parts = [
            (shares.late, Kind::Late),
            (shares.duplicate, Kind::Duplicate),
            (shares.malformed, Kind::Malformed),
            (shares.future, Kind::Future),
        ];
        let mut sum = 0.0;
        let mut limits = [(0, Kind::Normal); 4];
        for (limit, (share, kind)) in limits.iter_mut().zip(parts) {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("the share of {} records is {share}; it must lie between 0 and 1", kind.as_str()));
            }
            sum += share;
            *limit = ((sum * 4_294_967_296.0) as u64, kind);
        }
        // Ten shares of 0.1 are a little more than 1 in floating point.
        if sum > 1.0 + 1e-9 {
            return Err(format!(
                "the shares of late, duplicate, malformed and future records add up to {sum}, more than 1"
            ));
        }
        Ok(Self { limits })
    }

    /// Whether any record is to be a duplicate.
    pub fn has_duplicates(&self) -> bool {
        self.limits[1].0 > self.limits[0].0
    }

    /// The kind that 32 random bits stand for.
    pub fn kind(&self, random: u32) -> Kind {
        let random = u64::from(random);
        self.limits.iter().find(|(limit, _)| random < *limit).map_or(Kind::Normal, |(_, kind)| *kind)
    }
}

/// How a malformed record is broken. They come in turn. None of them is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The JSON ends in the middle.
    Truncated,
    /// `user_id` is a string.
    WrongType,
    /// There is no `page`.
    MissingField,
    /// `page` holds bytes that are no UTF-8.
    InvalidUtf8,
    /// The value has no bytes.
    Empty,
    /// The value is null.
    Tombstone,
    /// Plain text.
    NotJson,
    /// `event_type` is null.
    NullField,
    /// A date that does not exist.
    ImpossibleDate,
    /// `user_id` has a fraction.
    Fraction,
    /// `user_id` is greater than 64 bits hold.
    HugeNumber,
    /// An array around the event.
    Array,
    /// An unknown field nested 200 deep.
    DeepNesting,
    /// `page` holds half of a surrogate pair.
    LoneSurrogate,
    /// Text behind the object.
    TrailingText,
}

impl Malformed {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 15] = [
        Self::Truncated,
        Self::WrongType,
        Self::MissingField,
        Self::InvalidUtf8,
        Self::Empty,
        Self::Tombstone,
        Self::NotJson,
        Self::NullField,
        Self::ImpossibleDate,
        Self::Fraction,
        Self::HugeNumber,
        Self::Array,
        Self::DeepNesting,
        Self::LoneSurrogate,
        Self::TrailingText,
    ];

    /// Appends such a record to `value`. A tombstone appends nothing; the caller sends null.
    pub fn write(self, value: &mut Vec<u8>, event_id: &[u8; 36], user_id: u32, timestamp: &[u8; 19]) {
        let id = String::from_utf8_lossy(event_id);
        let number = Decimal::of(user_id);
        let user = String::from_utf8_lossy(number.as_bytes());
        let time = String::from_utf8_lossy(timestamp);
        let event = |user: &str, event_type: &str, page: &str, time: &str, more: &str| {
            format!(
                r#"{{"event_id":"{id}","user_id":{user},"event_type":{event_type},{page}"timestamp":"{time}","source":"web"{more}}}"#
            )
        };
        let click = "\"click\"";
        let page = r#""page":"/home","#;
        let sound = event(&user, click, page, &time, "");
        let text = match self {
            Self::Empty | Self::Tombstone => return,
            Self::Truncated => sound[..sound.len() / 2].to_owned(),
            Self::WrongType => event(&format!("\"{user}\""), click, page, &time, ""),
            Self::MissingField => event(&user, click, "", &time, ""),
            Self::NotJson => format!("user {user} clicked at {time}"),
            Self::NullField => event(&user, "null", page, &time, ""),
            Self::ImpossibleDate => event(&user, click, page, "2026-02-30T12:00:00", ""),
            Self::Fraction => event(&format!("{user}.5"), click, page, &time, ""),
            Self::HugeNumber => event("9223372036854775808", click, page, &time, ""),
            Self::Array => format!("[{sound}]"),
            Self::DeepNesting => {
                let more = format!(",\"extra\":{}{}", "[".repeat(200), "]".repeat(200));
                event(&user, click, page, &time, &more)
            }
            Self::LoneSurrogate => event(&user, click, r#""page":"/\ud800","#, &time, ""),
            Self::TrailingText => format!("{sound} and more"),
            Self::InvalidUtf8 => {
                let text = event(&user, click, r#""page":"/?","#, &time, "");
                value.extend(text.bytes().map(|byte| if byte == b'?' { 0xff } else { byte }));
                return;
            }
        };
        value.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::event::uuid_text;

    #[test]
    fn shares_are_met_and_checked() {
        let mix = Mix::new(Shares { late: 0.1, duplicate: 0.2, malformed: 0.3, future: 0.4 }).unwrap();
        let step = u32::MAX / 1_000;
        let mut counts = [0; 5];
        for i in 0..1_000 {
            counts[mix.kind(i * step + step / 2) as usize] += 1;
        }
        assert_eq!(counts, [0, 100, 200, 300, 400]);
        assert_eq!(Mix::new(Shares::default()).unwrap().kind(0), Kind::Normal);
        assert!(Mix::new(Shares { late: 1.1, ..Shares::default() }).unwrap_err().contains("late"));
        assert!(Mix::new(Shares { late: f64::NAN, ..Shares::default() }).is_err());
        assert!(Mix::new(Shares { late: 0.6, future: 0.6, ..Shares::default() }).unwrap_err().contains("1.2"));
    }

    #[test]
    fn kinds_index_arrays() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    /// What makes an event, checked by a general parser: none of the malformed records passes.
    fn is_event(value: &[u8]) -> bool {
        // serde_json's own limit on nesting is 128; it replaces nothing in strings and refuses lone surrogates.
        let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(value) else { return false };
        let text = |name: &str| object.get(name).and_then(|v| v.as_str());
        let time = text("timestamp").map(|t| chrono::NaiveDateTime::parse_from_str(t, "%Y-%m-%dT%H:%M:%S"));
        ["event_id", "event_type", "page", "source"].into_iter().all(|name| text(name).is_some())
            && object.get("user_id").is_some_and(|v| v.is_i64())
            && matches!(time, Some(Ok(_)))
    }

    #[test]
    fn no_malformed_record_is_an_event_and_each_is_broken_in_its_own_way() {
        let mut seen = Vec::new();
        for malformed in Malformed::ALL {
            let mut value = Vec::new();
            malformed.write(&mut value, &uuid_text(5), 42, b"2026-02-06T14:30:00");
            assert!(!is_event(&value), "{malformed:?}: {}", String::from_utf8_lossy(&value));
            if malformed != Malformed::Tombstone {
                assert!(!seen.contains(&value), "{malformed:?}");
                seen.push(value);
            }
        }
    }
}
