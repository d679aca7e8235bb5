-- Forgets what was noted long ago: a process died between settling a message and forgetting it.
--   $1  double precision  age in seconds
DELETE FROM revertd.suspects WHERE noted_at < now() - make_interval(secs => $1)
