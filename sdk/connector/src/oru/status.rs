//! Codes of a result: tables 0085, 0123, 0078 and 0103.

use crate::hl7::Field;

/// What MSH-11 says the message is for (table 0103).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessingId {
    /// P: care.
    Production,
    /// T: training.
    Training,
    /// D: looking for faults.
    Debugging,
}

/// The status of an observation (OBX-11, table 0085).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultStatus {
    /// F, and V of version 2.8.2: final, verified.
    Final,
    /// P: preliminary.
    Preliminary,
    /// R: entered, not verified.
    Unverified,
    /// S: partial.
    Partial,
    /// I: specimen in the laboratory, result pending.
    Pending,
    /// C: corrects a final result.
    Corrected,
    /// A: amended for other data of the patient.
    Amended,
    /// B: appended; the result is unchanged.
    Appended,
    /// U: the result that was sent before is now final; its value may be left out.
    NowFinal,
    /// X: the result cannot be obtained.
    Cancelled,
    /// D: the result is deleted.
    Deleted,
    /// W: the result was wrong from the start, such as another patient's.
    Wrong,
    /// N: not asked for.
    NotAsked,
    /// O: describes the order, without a result.
    OrderDetail,
    /// Empty, or no code of the table. The sender did not say whether the value may be relied on, or a
    /// message was cut off before this field.
    Unstated,
}

/// The status of an order (OBR-25, table 0123).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// F: final.
    Final,
    /// P: preliminary.
    Preliminary,
    /// R: stored, not verified.
    Unverified,
    /// A: some results, not all.
    Partial,
    /// C: corrected, final.
    Corrected,
    /// M: corrected, not final.
    CorrectedNotFinal,
    /// O, I, S and N: no results yet.
    Pending,
    /// X: cancelled, there will be no results.
    Cancelled,
    /// Empty, no code of the table, or Y and Z, which only answer queries.
    Unstated,
}

/// An abnormal flag (OBX-8, table 0078).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbnormalFlag {
    /// L.
    Low,
    /// H.
    High,
    /// LL.
    CriticallyLow,
    /// HH.
    CriticallyHigh,
    /// `<`: below what the instrument can measure.
    BelowScale,
    /// `>`: above what the instrument can measure.
    AboveScale,
    /// N.
    Normal,
    /// A.
    Abnormal,
    /// AA.
    CriticallyAbnormal,
    /// LU: significantly low, short of critical.
    SignificantlyLow,
    /// HU: significantly high, short of critical.
    SignificantlyHigh,
    /// U: risen since the last result.
    Risen,
    /// D: fallen since the last result.
    Fallen,
    /// B: better.
    Better,
    /// W: worse.
    Worse,
    /// S: susceptible.
    Susceptible,
    /// I: intermediate.
    Intermediate,
    /// R: resistant.
    Resistant,
    /// POS.
    Positive,
    /// NEG.
    Negative,
    /// Any other code.
    Other(String),
}

impl ProcessingId {
    pub(super) fn of(code: &str) -> Option<Self> {
        match code {
            "P" => Some(Self::Production),
            "T" => Some(Self::Training),
            "D" => Some(Self::Debugging),
            _ => None,
        }
    }
}

impl ResultStatus {
    pub(super) fn of(code: &str) -> Self {
        match code {
            "F" | "V" => Self::Final,
            "P" => Self::Preliminary,
            "R" => Self::Unverified,
            "S" => Self::Partial,
            "I" => Self::Pending,
            "C" => Self::Corrected,
            "A" => Self::Amended,
            "B" => Self::Appended,
            "U" => Self::NowFinal,
            "X" => Self::Cancelled,
            "D" => Self::Deleted,
            "W" => Self::Wrong,
            "N" => Self::NotAsked,
            "O" => Self::OrderDetail,
            _ => Self::Unstated,
        }
    }

    /// Whether what was sent before is taken back.
    #[must_use]
    pub const fn retracts(self) -> bool {
        matches!(self, Self::Deleted | Self::Wrong)
    }

    /// Whether what was sent before is replaced.
    #[must_use]
    pub const fn revises(self) -> bool {
        matches!(self, Self::Corrected | Self::Amended | Self::Appended | Self::NowFinal) || self.retracts()
    }

    /// Whether the value may still change.
    #[must_use]
    pub const fn is_preliminary(self) -> bool {
        matches!(self, Self::Preliminary | Self::Unverified | Self::Partial)
    }

    /// Whether the value is the patient's and may be told.
    #[must_use]
    pub const fn has_value(self) -> bool {
        !matches!(self, Self::Pending | Self::Cancelled | Self::NotAsked | Self::OrderDetail | Self::Unstated)
            && !self.retracts()
    }
}

impl OrderStatus {
    pub(super) fn of(code: &str) -> Self {
        match code {
            "F" => Self::Final,
            "P" => Self::Preliminary,
            "R" => Self::Unverified,
            "A" => Self::Partial,
            "C" => Self::Corrected,
            "M" => Self::CorrectedNotFinal,
            "O" | "I" | "S" | "N" => Self::Pending,
            "X" => Self::Cancelled,
            _ => Self::Unstated,
        }
    }

    /// Whether what was sent before is replaced.
    #[must_use]
    pub const fn revises(self) -> bool {
        matches!(self, Self::Corrected | Self::CorrectedNotFinal)
    }
}

impl AbnormalFlag {
    /// Every flag of OBX-8, repetitions that are empty left out.
    pub(super) fn all(field: Field<'_>) -> Vec<Self> {
        field
            .repetitions()
            .map(|flag| flag.component(1).text().trim().to_owned())
            .filter(|code| !code.is_empty() && code != super::NULL)
            .map(|code| Self::of(&code))
            .collect()
    }

    fn of(code: &str) -> Self {
        match code {
            "L" => Self::Low,
            "H" => Self::High,
            "LL" => Self::CriticallyLow,
            "HH" => Self::CriticallyHigh,
            "<" => Self::BelowScale,
            ">" => Self::AboveScale,
            "N" => Self::Normal,
            "A" => Self::Abnormal,
            "AA" => Self::CriticallyAbnormal,
            "LU" => Self::SignificantlyLow,
            "HU" => Self::SignificantlyHigh,
            "U" => Self::Risen,
            "D" => Self::Fallen,
            "B" => Self::Better,
            "W" => Self::Worse,
            "S" => Self::Susceptible,
            "I" => Self::Intermediate,
            "R" => Self::Resistant,
            "POS" => Self::Positive,
            "NEG" => Self::Negative,
            other => Self::Other(other.to_owned()),
        }
    }
}
