use super::Hl7Error;

/// The characters that structure a message, from MSH-1 and MSH-2. Those that MSH-2 leaves out do not
/// separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separators {
    field: char,
    component: Option<char>,
    repetition: Option<char>,
    escape: Option<char>,
    subcomponent: Option<char>,
    truncation: Option<char>,
}

impl Separators {
    /// Reads MSH-1 and MSH-2 (or those of FHS and BHS, which are alike): one to five different characters of
    /// ASCII punctuation, in the order component, repetition, escape, subcomponent, truncation.
    pub(super) fn of_header(line: &str) -> Result<Self, Hl7Error> {
        let rest = line.get(3..).ok_or(Hl7Error::NotHl7)?;
        let mut chars = rest.chars();
        let field = chars.next().ok_or(Hl7Error::BadSeparators)?;
        let named: Vec<char> = chars.take_while(|c| *c != field).take(6).collect();
        let plain = |c: &char| c.is_ascii_punctuation();
        let distinct = |(index, c): (usize, &char)| !named.iter().take(index).any(|earlier| earlier == c);
        if !plain(&field)
            || named.is_empty()
            || named.len() > 5
            || !named.iter().all(plain)
            || !named.iter().enumerate().all(distinct)
        {
            return Err(Hl7Error::BadSeparators);
        }
        let mut named = named.into_iter();
        Ok(Self {
            field,
            component: named.next(),
            repetition: named.next(),
            escape: named.next(),
            subcomponent: named.next(),
            truncation: named.next(),
        })
    }

    /// Nothing separates: for MSH-1 and MSH-2 themselves.
    pub(super) const fn none(self) -> Self {
        Self {
            field: self.field,
            component: None,
            repetition: None,
            escape: None,
            subcomponent: None,
            truncation: None,
        }
    }

    /// Between fields: MSH-1.
    #[must_use]
    pub const fn field(&self) -> char {
        self.field
    }

    /// Between components: the first of MSH-2.
    #[must_use]
    pub const fn component(&self) -> Option<char> {
        self.component
    }

    /// Between repetitions of a field: the second of MSH-2.
    #[must_use]
    pub const fn repetition(&self) -> Option<char> {
        self.repetition
    }

    /// Around an escape sequence: the third of MSH-2.
    #[must_use]
    pub const fn escape(&self) -> Option<char> {
        self.escape
    }

    /// Between subcomponents: the fourth of MSH-2.
    #[must_use]
    pub const fn subcomponent(&self) -> Option<char> {
        self.subcomponent
    }

    /// Behind a truncated text: the fifth of MSH-2, from version 2.7.
    #[must_use]
    pub const fn truncation(&self) -> Option<char> {
        self.truncation
    }
}
