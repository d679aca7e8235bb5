-- The tries that messages have behind them. Those without a row have none.
--   $1  uuid[]  messages
SELECT message, tries_together, tries_alone FROM revertd.suspects WHERE message = ANY ($1)
