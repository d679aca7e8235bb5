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
        "an index is invalid, or has another definition than in the migrations";
    CustomerLegMissing = "CUSTOMER_LEG_MISSING":
        "the outcome is a revert, but the customer's credit is not in the ledger";
    PlatformLegMissing = "PLATFORM_LEG_MISSING":
        "the outcome is a revert, but the platform's debit is not in the ledger";
    LegOnWrongAccount = "LEG_ON_WRONG_ACCOUNT":
        "a leg is on another account than the outcome's or the platform's";
    LegOfWrongType = "LEG_OF_WRONG_TYPE":
        "the customer's leg is not a credit, or the platform's leg is not a debit";
    LegAmountDiffers = "LEG_AMOUNT_DIFFERS": "a leg's amount differs from the outcome's";
    LegNamesWrongUsage = "LEG_NAMES_WRONG_USAGE":
        "a leg's metadata does not name the outcome's usage";
    LegsDiffer = "LEGS_DIFFER":
        "the two legs differ in source, description, metadata, user or time";
    EntryIdUnexpected = "ENTRY_ID_UNEXPECTED":
        "the ids of the entries do not follow from usage, number and account";
    LegNotAsWritten = "LEG_NOT_AS_WRITTEN":
        "the entry differs from the one that revertd writes, in source, description, reason or \
         time";
    OutcomeIdUnexpected = "OUTCOME_ID_UNEXPECTED":
        "the outcome's id does not follow from client, message id and content: if the request is \
         sent again, revertd does not recognize it";
    OrgChanged = "ORG_CHANGED":
        "the account belongs to another org than the one in the outcome and its event";
    UsageMissing = "USAGE_MISSING":
        "the reverted usage is not in the ledger, but its account is";
    UsageMismatch = "USAGE_MISMATCH": "the reverted entry is not a debit of the outcome's \
    account";
    UsageChanged = "USAGE_CHANGED":
        "the amount, source, description or user of the usage or of the revert was edited \
         afterwards";
    ChainBroken = "CHAIN_BROKEN": "the revert does not continue the one before it on its usage";
    RevertNumberTwice = "REVERT_NUMBER_TWICE": "two outcomes are the same revert of one usage";
    AmountNotPositive = "AMOUNT_NOT_POSITIVE": "the outcome's amount is below 1";
    RefusalUnknown = "REFUSAL_UNKNOWN": "the outcome's refusal has an unknown reason, or an \
    invalid code or message";
    RefusalWithLeg = "REFUSAL_WITH_LEG": "a refusal names entries or numbers of a revert";
    OutcomeIncomplete = "OUTCOME_INCOMPLETE": "a success lacks one of its entries, or its number";
    OutcomeExceedsUsage = "OUTCOME_EXCEEDS_USAGE":
        "by the outcome's own numbers, the revert is larger than the remaining amount of the \
        usage";
    OthersExceedBefore = "OTHERS_EXCEED_BEFORE":
        "the sum that other writers reverted is not between 1 and the sum that was reverted \
        before";
    OnceBroken = "ONCE_BROKEN": "a revert under the policy once is not the first revert of its \
    usage";
    LegWithoutOutcome = "LEG_WITHOUT_OUTCOME":
        "an entry has the form of a leg that revertd wrote, but no outcome of its usage names \
         it";
    RevertsExceedUsage = "REVERTS_EXCEED_USAGE":
        "the reverts of a usage add up to more than its amount";
    ExcessWithOthers = "EXCESS_WITH_OTHERS":
        "together with other writers' reverts, the reverts of a usage add up to more than its \
        amount";
    LegsUnbalanced = "LEGS_UNBALANCED":
        "over all reverts, the customers' credits differ from the platform's debits";
}

impl FindingKind {
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Whether the finding is only a warning: Frontier may edit its own usages and accounts.
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
