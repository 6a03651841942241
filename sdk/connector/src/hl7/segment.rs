//! Views of a segment's parts. What a message leaves out reads as empty, as the standard has it: a sender may
//! stop writing where only empty parts would follow.

use std::borrow::Cow;

use super::{Charset, Separators, escape};

/// How a text is split and decoded.
#[derive(Clone, Copy)]
pub(super) struct Syntax {
    pub(super) separators: Separators,
    pub(super) charset: Charset,
}

/// A segment of a message.
#[derive(Clone, Copy)]
pub struct Segment<'m> {
    text: &'m str,
    syntax: Syntax,
}

impl<'m> Segment<'m> {
    pub(super) const fn new(text: &'m str, syntax: Syntax) -> Self {
        Self { text, syntax }
    }

    /// The name, three characters: `MSH`, `PID`, `OBX`.
    #[must_use]
    pub fn name(&self) -> &'m str {
        self.text.get(..3).unwrap_or_default()
    }

    /// The segment as it stands in the message, escapes included.
    #[must_use]
    pub const fn raw(&self) -> &'m str {
        self.text
    }

    /// The field with this number, from 1. In MSH, field 1 is the field separator and field 2 the other ones.
    #[must_use]
    pub fn field(&self, number: usize) -> Field<'m> {
        number
            .checked_sub(1)
            .and_then(|skipped| self.fields().nth(skipped))
            .unwrap_or(Field { raw: "", syntax: self.syntax })
    }

    /// Every field that the segment has, from the first.
    pub fn fields(&self) -> impl Iterator<Item = Field<'m>> + use<'m> {
        let syntax = self.syntax;
        let header = self.is_header();
        // MSH-1 is the separator that ends the name; there is no separator before it.
        let separator = self.text.get(3..4).filter(|_| header);
        let rest = self.text.get(4..);
        let split = rest.into_iter().flat_map(move |rest| rest.split(syntax.separators.field()));
        separator.into_iter().chain(split).enumerate().map(move |(index, raw)| {
            let plain = Syntax { separators: syntax.separators.none(), ..syntax };
            Field { raw, syntax: if header && index < 2 { plain } else { syntax } }
        })
    }

    pub(super) fn is_header(&self) -> bool {
        self.name() == "MSH"
    }

    pub(super) const fn separators(&self) -> Separators {
        self.syntax.separators
    }

    pub(super) fn decode(&self, raw: &'m str) -> Cow<'m, str> {
        escape::decode(raw, &self.syntax.separators, self.syntax.charset)
    }
}

/// A field: what stands between two field separators.
#[derive(Clone, Copy)]
pub struct Field<'m> {
    raw: &'m str,
    syntax: Syntax,
}

impl<'m> Field<'m> {
    /// The field as it stands in the message, escapes included.
    #[must_use]
    pub const fn raw(&self) -> &'m str {
        self.raw
    }

    /// Whether the field is left out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Every repetition; an empty field has one, empty.
    pub fn repetitions(&self) -> impl Iterator<Item = Repetition<'m>> + use<'m> {
        let syntax = self.syntax;
        split(self.raw, syntax.separators.repetition()).map(move |raw| Repetition { raw, syntax })
    }

    /// The first repetition.
    #[must_use]
    pub fn first(&self) -> Repetition<'m> {
        self.repetitions().next().unwrap_or(Repetition { raw: "", syntax: self.syntax })
    }

    /// A component of the first repetition, from 1.
    #[must_use]
    pub fn component(&self, number: usize) -> Component<'m> {
        self.first().component(number)
    }

    /// The first text of the field: what a reader takes that expects no structure (section 2.5.3.3).
    #[must_use]
    pub fn text(&self) -> Cow<'m, str> {
        self.component(1).text()
    }
}

/// One repetition of a field.
#[derive(Clone, Copy)]
pub struct Repetition<'m> {
    raw: &'m str,
    syntax: Syntax,
}

impl<'m> Repetition<'m> {
    /// The repetition as it stands in the message, escapes included.
    #[must_use]
    pub const fn raw(&self) -> &'m str {
        self.raw
    }

    /// Whether the repetition is left out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Every component.
    pub fn components(&self) -> impl Iterator<Item = Component<'m>> + use<'m> {
        let syntax = self.syntax;
        split(self.raw, syntax.separators.component()).map(move |raw| Component { raw, syntax })
    }

    /// A component, from 1.
    #[must_use]
    pub fn component(&self, number: usize) -> Component<'m> {
        number
            .checked_sub(1)
            .and_then(|skipped| self.components().nth(skipped))
            .unwrap_or(Component { raw: "", syntax: self.syntax })
    }

    /// The whole repetition as one text, for the types without structure (ST, TX, FT): a component separator
    /// that a sender forgot to escape is then a character like any other, and nothing behind it is lost.
    #[must_use]
    pub fn literal(&self) -> Cow<'m, str> {
        escape::decode(self.raw, &self.syntax.separators, self.syntax.charset)
    }
}

/// A component of a repetition.
#[derive(Clone, Copy)]
pub struct Component<'m> {
    raw: &'m str,
    syntax: Syntax,
}

impl<'m> Component<'m> {
    /// The component as it stands in the message, escapes included.
    #[must_use]
    pub const fn raw(&self) -> &'m str {
        self.raw
    }

    /// The text of the first subcomponent, decoded.
    #[must_use]
    pub fn text(&self) -> Cow<'m, str> {
        self.subcomponent(1)
    }

    /// The text of a subcomponent, from 1, decoded.
    #[must_use]
    pub fn subcomponent(&self, number: usize) -> Cow<'m, str> {
        let raw = number.checked_sub(1).and_then(|skipped| self.raw_subcomponents().nth(skipped));
        escape::decode(raw.unwrap_or_default(), &self.syntax.separators, self.syntax.charset)
    }

    pub(super) fn raw_subcomponents(&self) -> impl Iterator<Item = &'m str> + use<'m> {
        split(self.raw, self.syntax.separators.subcomponent())
    }
}

debug_without_content!(Segment<'_>, Field<'_>, Repetition<'_>, Component<'_>);

/// The parts of `raw`: all of it where nothing separates.
fn split(raw: &str, separator: Option<char>) -> impl Iterator<Item = &str> {
    let mut rest = Some(raw);
    std::iter::from_fn(move || {
        let text = rest?;
        match separator.and_then(|separator| text.split_once(separator)) {
            Some((part, behind)) => {
                rest = Some(behind);
                Some(part)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}
