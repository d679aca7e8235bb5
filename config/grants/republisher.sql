-- The role `republisher`, for `revertd events republish`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/republisher.sql URL
GRANT USAGE ON SCHEMA revertd TO republisher;
GRANT SELECT ON revertd.outcomes TO republisher;
