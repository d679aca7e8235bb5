//! Settings with a fixed list of values.

use std::fmt;

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => {
                        let known = [$($text),*].join(", ");
                        Err(format!("is \"{text}\"; it must be one of: {known}"))
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }

        text_type!($name, $name::parse);
    };
}

choice! {
    /// How often a usage can be reverted.
    Policy {
        /// Once, wholly or in part.
        Once = "once",
        /// In parts that add up to at most the usage.
        Cumulative = "cumulative",
    }
}

choice! {
    /// Who may revert usages of an org.
    AuthorizationMode {
        /// A client that has a grant for the org.
        Grants = "grants",
        /// Every client that the broker permits to publish.
        Broker = "broker",
    }
}

choice! {
    /// Format of log lines.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text for people.
        Text = "text",
        /// JSON for machines, one object per line.
        Json = "json",
    }
}
