-- Watching: what was found of hosts between operations.
--
-- The binary before this one works with this schema. It knows nothing of these columns,
-- so what concerns its own changes of a host's state is done by a trigger.

-- +goose Up

-- watch_state is what the last check found, '' before the first one; watch_reason says
-- more, watch_since is when that was first found, watch_failures how many checks in a row
-- have failed. watched is when the last check began, watch_facts when one last read the
-- host's facts, rebooted when one found a boot that no operation was behind. watch_prior
-- is the state that the host had when it was failed for failed checks, '' for a host that
-- was not: what failed it otherwise is not undone by a check.
ALTER TABLE host
    ADD COLUMN watch_state text NOT NULL DEFAULT '',
    ADD COLUMN watch_reason text NOT NULL DEFAULT '',
    ADD COLUMN watch_since timestamptz,
    ADD COLUMN watch_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN watched timestamptz,
    ADD COLUMN watch_facts timestamptz,
    ADD COLUMN rebooted timestamptz,
    ADD COLUMN watch_prior text NOT NULL DEFAULT '',
    ADD CONSTRAINT host_watch_state CHECK (watch_state IN ('', 'healthy', 'slow', 'unreachable', 'auth-refused', 'key-changed', 'rebooting')),
    ADD CONSTRAINT host_watch_prior CHECK (watch_prior IN ('', 'active', 'disassociated')),
    ADD CONSTRAINT host_watch_failures_not_negative CHECK (watch_failures >= 0),
    ADD CONSTRAINT host_watched_whole CHECK (watch_state = '' OR num_nulls(watched, watch_since) = 0);

-- Every host is written once an interval, in columns without an index. With room in its
-- page that touches no index either.
ALTER TABLE host SET (fillfactor = 70);

-- A check that began before a host's part in an operation ended says nothing.
CREATE INDEX host_run_by_end ON host_run (tenant, finished) WHERE finished IS NOT NULL AND started IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION host_state_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.watch_prior := '';
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER host_state_set BEFORE UPDATE OF state ON host FOR EACH ROW
    WHEN (OLD.watch_prior <> '' AND NEW.watched IS NOT DISTINCT FROM OLD.watched) EXECUTE FUNCTION host_state_set();
