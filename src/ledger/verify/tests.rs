use super::*;

#[test]
fn every_code_of_the_statements_is_known() {
    for kind in FindingKind::ALL {
        assert_eq!(FindingKind::of_code(kind.code()), Some(*kind));
    }
    let statements = [include_str!("outcomes.sql"), include_str!("entries.sql")];
    for statement in statements {
        for code in statement.split("THEN '").skip(1) {
            let code = code.split('\'').next().unwrap_or_default();
            assert!(FindingKind::of_code(code).is_some(), "{code}");
        }
    }
}
