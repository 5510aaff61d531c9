-- Rollouts: operations that go over the hosts of a cluster by a policy, several
-- hosts at a time, and that people can steer while they run; and the events that
-- followers of an operation read.
--
-- The binary before this one works with this schema: what it does not fill in has
-- a default or is filled in by a trigger.

-- +goose Up

ALTER TABLE cluster ADD COLUMN policy jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT cluster_policy_object CHECK (jsonb_typeof(policy) = 'object');

ALTER TABLE host
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN bootc boolean NOT NULL DEFAULT false,
    ADD COLUMN package_manager text NOT NULL DEFAULT '',
    ADD CONSTRAINT host_labels_object CHECK (jsonb_typeof(labels) = 'object');

CREATE INDEX host_away ON host (tenant, cluster, address) WHERE state NOT IN ('active', 'disassociated');

-- hosts is how many host runs there are; a trigger counts them.
ALTER TABLE operation
    ADD COLUMN version text NOT NULL DEFAULT '',
    ADD COLUMN retry_of uuid,
    ADD COLUMN hosts integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT operation_kind,
    ADD CONSTRAINT operation_kind CHECK (kind IN ('bootstrap', 'restart', 'upgrade', 'deploy'));

CREATE INDEX operation_by_requester ON operation (tenant, requested_by, id);
CREATE INDEX operation_by_retried ON operation (retry_of, id) WHERE retry_of IS NOT NULL;

-- What changes often while a rollout runs. The row is also its lock: whoever hands
-- out hosts, ends one or steers locks it. turn is the last one that was claimed.
-- Steering counts up generation, and a claim notes the one it has seen. canaries_done
-- is when the last canary was done in the operations that this one retries. The counts
-- of host runs by state, and the seconds that succeeded ones had a slot (busy), are
-- kept by a trigger.
CREATE TABLE rollout (
    operation_id    uuid NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    policy          jsonb NOT NULL DEFAULT '{}',
    turn            integer NOT NULL DEFAULT 0,
    generation      integer NOT NULL DEFAULT 0,
    seen_generation integer NOT NULL DEFAULT 0,
    steered         timestamptz,
    paused          timestamptz,
    paused_by       text NOT NULL DEFAULT '',
    approved        timestamptz,
    approved_by     text NOT NULL DEFAULT '',
    cancelled       timestamptz,
    cancelled_by    text NOT NULL DEFAULT '',
    waiting         text NOT NULL DEFAULT '',
    canaries_done   timestamptz,
    pending         integer NOT NULL DEFAULT 0,
    staging         integer NOT NULL DEFAULT 0,
    staged          integer NOT NULL DEFAULT 0,
    running         integer NOT NULL DEFAULT 0,
    succeeded       integer NOT NULL DEFAULT 0,
    failed          integer NOT NULL DEFAULT 0,
    skipped         integer NOT NULL DEFAULT 0,
    busy            double precision NOT NULL DEFAULT 0,
    CONSTRAINT rollout_pk PRIMARY KEY (operation_id),
    CONSTRAINT rollout_operation_fk FOREIGN KEY (operation_id) REFERENCES operation (id) ON DELETE CASCADE,
    CONSTRAINT rollout_policy_object CHECK (jsonb_typeof(policy) = 'object'),
    CONSTRAINT rollout_seen CHECK (seen_generation <= generation)
) WITH (fillfactor = 50);

CREATE INDEX rollout_unseen ON rollout (steered) WHERE generation > seen_generation;

-- stages: the host must be staged before it is taken away. rolling is when it got
-- its slot; started, when it was first at work; begun, that a worker took it up,
-- from when on no pause stops it. turn is the claim that handed out
-- its slot, also when that was handed on since, to the host in next_address.
ALTER TABLE host_run
    ADD COLUMN canary boolean NOT NULL DEFAULT false,
    ADD COLUMN slot integer NOT NULL DEFAULT 0,
    ADD COLUMN stages boolean NOT NULL DEFAULT false,
    ADD COLUMN target text NOT NULL DEFAULT '',
    ADD COLUMN down boolean NOT NULL DEFAULT false,
    ADD COLUMN turn integer NOT NULL DEFAULT 0,
    ADD COLUMN next_address text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN waiting text NOT NULL DEFAULT '',
    ADD COLUMN held_since timestamptz,
    ADD COLUMN rolling timestamptz,
    ADD COLUMN begun boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT host_run_state,
    ADD CONSTRAINT host_run_state CHECK (state IN ('pending', 'staging', 'staged', 'running', 'succeeded', 'failed', 'skipped')),
    DROP CONSTRAINT host_run_started,
    ADD CONSTRAINT host_run_started CHECK (state NOT IN ('staging', 'staged', 'running', 'succeeded') OR started IS NOT NULL),
    ADD CONSTRAINT host_run_down CHECK (NOT down OR state = 'failed');

-- The lock: one operation at a time works on a host.
DROP INDEX host_run_one_running;
CREATE UNIQUE INDEX host_run_one_running ON host_run (tenant, address) WHERE state IN ('staging', 'running');

-- What a claim looks for, so that it costs the same however many hosts there are.
CREATE INDEX host_run_unstaged ON host_run (operation_id, canary, position) WHERE state = 'pending' AND stages;
CREATE INDEX host_run_ready ON host_run (operation_id, canary, position) WHERE state = 'staged' OR state = 'pending' AND NOT stages;
CREATE INDEX host_run_at_work ON host_run (operation_id, canary, state, slot) WHERE state IN ('staging', 'running');
CREATE INDEX host_run_failed ON host_run (operation_id, canary, down, slot) WHERE state = 'failed';
CREATE INDEX host_run_canaries_done ON host_run (operation_id, finished) WHERE canary AND finished IS NOT NULL;
CREATE INDEX host_run_by_state ON host_run (operation_id, state, position);

CREATE INDEX step_by_operation ON step (operation_id, id);

-- A request that is sent again gets the answer of the first one. created is that
-- of the operation when the request made it.
CREATE TABLE idempotency_key (
    tenant       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    digest       bytea NOT NULL,
    operation_id uuid NOT NULL,
    created      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_key_pk PRIMARY KEY (tenant, key),
    CONSTRAINT idempotency_key_operation_fk FOREIGN KEY (operation_id) REFERENCES operation (id) ON DELETE CASCADE,
    CONSTRAINT idempotency_key_given CHECK (key <> '')
);

-- Events and output share one sequence. A transaction may commit after one with
-- higher numbers, so readers go by the transaction first (xid, seq), and read only
-- transactions before which none is open any more.
CREATE SEQUENCE record_seq AS bigint;

-- What happened in an operation, from this version on. There is no foreign key to
-- operation: each event would lock that row, which all hosts share.
CREATE TABLE event (
    seq          bigint NOT NULL DEFAULT nextval('record_seq'),
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    tenant       text COLLATE "C" NOT NULL,
    operation_id uuid NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text NOT NULL,
    address      text COLLATE "C" NOT NULL DEFAULT '',
    step         text NOT NULL DEFAULT '',
    attempt      integer NOT NULL DEFAULT 0,
    state        text NOT NULL,
    reason       text NOT NULL DEFAULT '',
    exit_code    integer,
    by_whom      text NOT NULL DEFAULT '',
    detail       text NOT NULL DEFAULT '',
    CONSTRAINT event_pk PRIMARY KEY (operation_id, xid, seq),
    CONSTRAINT event_kind CHECK (kind IN ('operation', 'host', 'step', 'steer'))
);

ALTER TABLE output
    ADD COLUMN operation_id uuid,
    ADD COLUMN seq bigint,
    ADD COLUMN xid xid8,
    ADD COLUMN at timestamptz;

-- Rows of the schema before this one. Transaction 0 is before all others.

UPDATE operation o SET hosts = (SELECT count(*) FROM host_run r WHERE r.operation_id = o.id);

UPDATE host_run SET rolling = started, slot = 1 WHERE started IS NOT NULL;

INSERT INTO rollout (operation_id, tenant, pending, running, succeeded, failed, skipped, busy)
    SELECT o.id, o.tenant,
        count(r.state) FILTER (WHERE r.state = 'pending'), count(r.state) FILTER (WHERE r.state = 'running'),
        count(r.state) FILTER (WHERE r.state = 'succeeded'), count(r.state) FILTER (WHERE r.state = 'failed'),
        count(r.state) FILTER (WHERE r.state = 'skipped'),
        coalesce(sum(extract(epoch FROM r.finished - r.started)) FILTER (WHERE r.state = 'succeeded'), 0)
    FROM operation o LEFT JOIN host_run r ON r.operation_id = o.id
    WHERE o.kind <> 'bootstrap' GROUP BY o.id;

UPDATE output SET operation_id = old.operation_id, seq = old.seq, xid = '0', at = old.started
    FROM (SELECT c.step_id, c.position, s.operation_id, s.started, row_number() OVER (ORDER BY c.step_id, c.position) AS seq
        FROM output c JOIN step s ON s.id = c.step_id) old
    WHERE output.step_id = old.step_id AND output.position = old.position;
SELECT setval('record_seq', coalesce((SELECT max(seq) FROM output), 0) + 1);

ALTER TABLE output
    ALTER COLUMN operation_id SET NOT NULL,
    ALTER COLUMN seq SET NOT NULL, ALTER COLUMN seq SET DEFAULT nextval('record_seq'),
    ALTER COLUMN xid SET NOT NULL, ALTER COLUMN xid SET DEFAULT pg_current_xact_id(),
    ALTER COLUMN at SET NOT NULL, ALTER COLUMN at SET DEFAULT clock_timestamp();
CREATE INDEX output_by_operation ON output (operation_id, xid, seq);

-- +goose StatementBegin
CREATE FUNCTION operation_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, state, by_whom)
        VALUES (NEW.tenant, NEW.id, 'operation', NEW.state, NEW.requested_by);
    IF NEW.kind <> 'bootstrap' THEN
        INSERT INTO rollout (operation_id, tenant) VALUES (NEW.id, NEW.tenant);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER operation_inserted AFTER INSERT ON operation FOR EACH ROW EXECUTE FUNCTION operation_inserted();

-- +goose StatementBegin
CREATE FUNCTION operation_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, state, reason)
        VALUES (NEW.tenant, NEW.id, 'operation', NEW.state, NEW.reason);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER operation_changed AFTER UPDATE ON operation FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION operation_changed();

-- +goose StatementBegin
CREATE FUNCTION host_runs_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, address, state, reason)
        SELECT tenant, operation_id, 'host', address, state, reason FROM new_rows ORDER BY position;
    UPDATE operation o SET hosts = o.hosts + n.all_of_them
        FROM (SELECT operation_id, count(*) AS all_of_them FROM new_rows GROUP BY operation_id) n WHERE o.id = n.operation_id;
    UPDATE rollout p SET pending = p.pending + n.pending
        FROM (SELECT operation_id, count(*) AS pending FROM new_rows WHERE state = 'pending' GROUP BY operation_id) n
        WHERE p.operation_id = n.operation_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER host_runs_inserted AFTER INSERT ON host_run REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION host_runs_inserted();

-- The plan of its join is kept from a time when one row changed; as a nested loop
-- it would take minutes for all hosts of an operation.

-- +goose StatementBegin
CREATE FUNCTION host_runs_changed() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, address, state, reason)
        SELECT n.tenant, n.operation_id, 'host', n.address, n.state, n.reason
        FROM new_rows n JOIN old_rows o USING (operation_id, address) WHERE n.state <> o.state ORDER BY n.position;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE rollout p SET
        pending = p.pending + c.pending, staging = p.staging + c.staging, staged = p.staged + c.staged, running = p.running + c.running,
        succeeded = p.succeeded + c.succeeded, failed = p.failed + c.failed, skipped = p.skipped + c.skipped, busy = p.busy + c.busy
        FROM (SELECT operation_id,
                coalesce(sum(more) FILTER (WHERE state = 'pending'), 0) AS pending, coalesce(sum(more) FILTER (WHERE state = 'staging'), 0) AS staging,
                coalesce(sum(more) FILTER (WHERE state = 'staged'), 0) AS staged, coalesce(sum(more) FILTER (WHERE state = 'running'), 0) AS running,
                coalesce(sum(more) FILTER (WHERE state = 'succeeded'), 0) AS succeeded, coalesce(sum(more) FILTER (WHERE state = 'failed'), 0) AS failed,
                coalesce(sum(more) FILTER (WHERE state = 'skipped'), 0) AS skipped,
                coalesce(sum(more * extract(epoch FROM finished - rolling)) FILTER (WHERE state = 'succeeded'), 0) AS busy
            FROM (SELECT operation_id, state, finished, rolling, 1 AS more FROM new_rows
                UNION ALL SELECT operation_id, state, finished, rolling, -1 FROM old_rows) both_rows
            GROUP BY operation_id) c
        WHERE p.operation_id = c.operation_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER host_runs_changed AFTER UPDATE ON host_run REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION host_runs_changed();

-- +goose StatementBegin
CREATE FUNCTION step_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, address, step, attempt, state, reason, exit_code)
        VALUES (NEW.tenant, NEW.operation_id, 'step', NEW.address, NEW.name, NEW.attempt, NEW.state, NEW.reason, NEW.exit_code);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER step_inserted AFTER INSERT ON step FOR EACH ROW EXECUTE FUNCTION step_changed();
CREATE TRIGGER step_changed AFTER UPDATE ON step FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION step_changed();

-- +goose StatementBegin
CREATE FUNCTION output_belongs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT operation_id INTO NEW.operation_id FROM step WHERE id = NEW.step_id;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER output_belongs BEFORE INSERT ON output FOR EACH ROW EXECUTE FUNCTION output_belongs();

-- Wakes who follows an operation. Postgres sends a text once per transaction.

-- +goose StatementBegin
CREATE FUNCTION wake_followers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('commissaire', operation_id::text) FROM (SELECT DISTINCT operation_id FROM new_rows) n;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER event_wakes AFTER INSERT ON event REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION wake_followers();
CREATE TRIGGER output_wakes AFTER INSERT ON output REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION wake_followers();
