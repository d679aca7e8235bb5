//! The codes of `google.rpc.Code`: number, name, and the HTTP status that goes with each.
//!
//! Pure. The statuses are those of `google/rpc/code.proto`.

macro_rules! codes {
    ($($variant:ident = $number:literal, $name:literal, $status:literal;)*) => {
        /// What kind of error it is. `OK` is none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "google.rpc.Code describes each")]
        pub enum RpcCode {
            $($variant = $number,)*
        }

        impl RpcCode {
            /// The code of that number.
            #[must_use]
            pub const fn of_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name in `google.rpc.Code`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The HTTP status of an answer with that code.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }
        }
    };
}

codes! {
    Cancelled = 1, "CANCELLED", 499;
    Unknown = 2, "UNKNOWN", 500;
    InvalidArgument = 3, "INVALID_ARGUMENT", 400;
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED", 504;
    NotFound = 5, "NOT_FOUND", 404;
    AlreadyExists = 6, "ALREADY_EXISTS", 409;
    PermissionDenied = 7, "PERMISSION_DENIED", 403;
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED", 429;
    FailedPrecondition = 9, "FAILED_PRECONDITION", 400;
    Aborted = 10, "ABORTED", 409;
    OutOfRange = 11, "OUT_OF_RANGE", 400;
    Unimplemented = 12, "UNIMPLEMENTED", 501;
    Internal = 13, "INTERNAL", 500;
    Unavailable = 14, "UNAVAILABLE", 503;
    DataLoss = 15, "DATA_LOSS", 500;
    Unauthenticated = 16, "UNAUTHENTICATED", 401;
}

impl RpcCode {
    /// Its number in `google.rpc.Code`.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }
}
