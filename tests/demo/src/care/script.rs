//! What the care team says, with a canary in each text.

use crate::canary::Canary;
use crate::clock::system_rng;

/// What is said, in the order in which it is.
pub(crate) struct Script {
    canaries: [Canary; 6],
}

impl Script {
    /// With new canaries.
    pub(crate) fn new() -> Self {
        let mut rng = system_rng();
        let mut with_canary = |field, text| Canary::before(text, field, rng.as_mut());
        Self {
            canaries: [
                with_canary("the group's label", "Potassium"),
                with_canary(
                    "the question",
                    "Potassium 6.9 mmol/L, critically high. Can somebody see her now?",
                ),
                with_canary("the first answer", "I am on my way"),
                with_canary("the second answer", "I cannot"),
                with_canary("the code of the answer", "coming"),
                with_canary("the patient's words", "I feel weak. Where are you?"),
            ],
        }
    }

    /// All canaries.
    pub(crate) fn canaries(&self) -> &[Canary] {
        &self.canaries
    }

    /// What the group is called.
    pub(crate) fn label(&self) -> &str {
        self.canaries[0].planted()
    }

    /// What the laboratory asks.
    pub(crate) fn question(&self) -> &str {
        self.canaries[1].planted()
    }

    /// The answers that it offers: code, and what a person sees.
    pub(crate) fn answers(&self) -> [(&str, &str); 2] {
        [(self.answer_code(), self.canaries[2].planted()), ("busy", self.canaries[3].planted())]
    }

    /// The code of the answer that the doctor gives.
    pub(crate) fn answer_code(&self) -> &str {
        self.canaries[4].planted()
    }

    /// What the patient writes after the doctor's phone was revoked.
    pub(crate) fn later(&self) -> &str {
        self.canaries[5].planted()
    }

    /// The random part of it.
    pub(crate) fn later_canary(&self) -> &str {
        &self.canaries[5].text
    }
}
