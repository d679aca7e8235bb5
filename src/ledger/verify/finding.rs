//! The kinds of findings: a stable code and a sentence for each.

use std::fmt;

use uuid::Uuid;

macro_rules! kinds {
    ($($variant:ident = $code:literal: $sentence:literal;)*) => {
        /// The kinds of findings of `verify`. Codes are stable; sentences may change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each has its sentence")]
        pub enum FindingKind {
            $($variant,)*
        }

        impl FindingKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

        /// The code that is printed.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

        /// The explanation.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }
        }
    };
}

kinds! {
    GuardBroken = "GUARD_BROKEN":
        "the database may accept invalid rows, and old rows may be invalid; `revertd doctor` shows \
         the remedy";
    IndexMissing = "INDEX_MISSING":
        "an index is missing; `revertd migrate` builds the one of the entries, and look-ups are \
         slow without it";
    IndexWithoutEffect = "INDEX_WITHOUT_EFFECT":
        "an index is invalid, or not the one that it should be";
    CustomerLegMissing = "CUSTOMER_LEG_MISSING":
        "the customer was informed of a revert, and its credit is not in the ledger";
    PlatformLegMissing = "PLATFORM_LEG_MISSING":
        "the revert's entry on the platform's account is not in the ledger";
    LegOnWrongAccount = "LEG_ON_WRONG_ACCOUNT":
        "a leg is not on its account: the customer's that the outcome names, or the platform's";
    LegOfWrongType = "LEG_OF_WRONG_TYPE":
        "the customer's leg is no credit, or the platform's no debit";
    LegAmountDiffers = "LEG_AMOUNT_DIFFERS": "a leg's amount is not the outcome's";
    LegNamesWrongUsage = "LEG_NAMES_WRONG_USAGE":
        "a leg's metadata does not name the outcome's usage";
    LegsDiffer = "LEGS_DIFFER":
        "the two legs differ in source, description, metadata, user or time";
    EntryIdUnexpected = "ENTRY_ID_UNEXPECTED":
        "the ids of the entries do not follow from usage, number and account";
    LegNotAsWritten = "LEG_NOT_AS_WRITTEN":
        "the entry is not as revertd writes it: its source, description or reason, or a time that \
         is not the outcome's";
    OutcomeIdUnexpected = "OUTCOME_ID_UNEXPECTED":
        "the outcome's id does not follow from client, message id and content: its request, sent \
         again, is not known";
    OrgChanged = "ORG_CHANGED":
        "the account is of another org than the outcome's, which its event named";
    UsageMissing = "USAGE_MISSING":
        "the usage that was reverted is not in the ledger, and its account is";
    UsageMismatch = "USAGE_MISMATCH": "what was reverted is not a debit of the outcome's account";
    UsageChanged = "USAGE_CHANGED":
        "the usage's amount, source, description or user was edited after the revert, or the \
         revert's";
    ChainBroken = "CHAIN_BROKEN": "the revert does not continue the one before it on its usage";
    RevertNumberTwice = "REVERT_NUMBER_TWICE": "two outcomes are the same revert of one usage";
    AmountNotPositive = "AMOUNT_NOT_POSITIVE": "the outcome's amount is below 1";
    RefusalUnknown = "REFUSAL_UNKNOWN": "the outcome's refusal is none that can be told";
    RefusalWithLeg = "REFUSAL_WITH_LEG": "a refusal names entries or numbers of a revert";
    OutcomeIncomplete = "OUTCOME_INCOMPLETE": "a success lacks one of its entries, or its number";
    OutcomeExceedsUsage = "OUTCOME_EXCEEDS_USAGE":
        "by its own numbers, the revert gives back more than remained";
    OthersExceedBefore = "OTHERS_EXCEED_BEFORE":
        "what others gave back is not part of what was given back before";
    OnceBroken = "ONCE_BROKEN": "a revert under the policy once is not the first of its usage";
    LegWithoutOutcome = "LEG_WITHOUT_OUTCOME":
        "an entry has the form of a leg that revertd wrote, and no outcome of the usage that it \
         names knows it";
    RevertsExceedUsage = "REVERTS_EXCEED_USAGE":
        "the reverts of a usage add up to more than it took";
    ExcessWithOthers = "EXCESS_WITH_OTHERS":
        "with the reverts of other writers, more was given back than the usage took";
    LegsUnbalanced = "LEGS_UNBALANCED":
        "over all reverts, what the customers were given is not what the platform gave";
}

impl FindingKind {
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Whether it violates no guarantee of revertd: Frontier may edit its own usages and accounts.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(self, Self::UsageChanged | Self::OrgChanged)
    }
}

/// A violation or warning, with its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind.
    pub kind: FindingKind,
    /// The outcome, if the finding is about one.
    pub outcome: Option<Uuid>,
    /// The usage, if known.
    pub usage: Option<Uuid>,
    /// The billing account.
    pub account: Option<Uuid>,
    /// The entries concerned.
    pub entries: Vec<Uuid>,
    /// Further details, such as a constraint or sums.
    pub about: Option<String>,
}

impl Finding {
    pub(crate) fn new(kind: FindingKind) -> Self {
        Self {
            kind,
            outcome: None,
            usage: None,
            account: None,
            entries: Vec::new(),
            about: None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.code())?;
        let ids = [
            ("outcome", self.outcome),
            ("usage", self.usage),
            ("account", self.account),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                write!(f, " {name} {id}")?;
            }
        }
        for entry in &self.entries {
            write!(f, " entry {entry}")?;
        }
        if let Some(about) = &self.about {
            write!(f, " {about}")?;
        }
        write!(f, ": {}", self.kind.sentence())
    }
}
