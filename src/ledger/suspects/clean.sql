-- Deletes old rows, which remain if a process died after it settled a message.
--   $1  double precision  age in seconds
DELETE FROM revertd.suspects WHERE noted_at < now() - make_interval(secs => $1)
