//! Ids of entries that revert a usage, as Frontier computes them.

use uuid::Uuid;

/// The namespace of these ids.
const FRONTIER: Uuid = Uuid::from_u128(0x9674_16d0_716e_4308_b58f_2468_ac14_f20a);

/// The id of the customer-side leg of the entry with this number, as `revertd.entry_id` computes
/// it.
pub(super) fn entry_id(usage: Uuid, number: i64, account: Uuid) -> Uuid {
    Uuid::new_v5(&FRONTIER, format!("{usage}:{number}:{account}").as_bytes())
}

/// The id of its other leg, as `revertd.platform_leg` computes it.
pub(super) fn platform_leg(entry: Uuid) -> Uuid {
    let mut bytes = entry.into_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    Uuid::from_bytes(bytes)
}
