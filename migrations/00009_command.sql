-- Commands: one command on every chosen host of a cluster at once. Such an operation holds
-- neither its cluster nor its hosts, so any number of them may run, also beside others.
--
-- The binary before this one works with this schema: it starts no command. It ends one that
-- has run for longer than a minute, since it looks for its workflow under another name.

-- +goose Up

-- command is what to run and how, NULL for other operations.
ALTER TABLE operation
    ADD COLUMN command jsonb,
    ADD COLUMN holds boolean NOT NULL DEFAULT true,
    DROP CONSTRAINT operation_kind,
    ADD CONSTRAINT operation_kind CHECK (kind IN ('bootstrap', 'register', 'unregister', 'restart', 'upgrade', 'deploy', 'sync', 'command')),
    ADD CONSTRAINT operation_command CHECK ((command IS NOT NULL) = (kind = 'command') AND holds = (kind <> 'command'));

ALTER TABLE host_run ADD COLUMN holds boolean NOT NULL DEFAULT true;

-- The locks: one unfinished operation that holds the cluster, and one at a time that holds
-- a host.
DROP INDEX operation_one_per_cluster;
CREATE UNIQUE INDEX operation_one_per_cluster ON operation (tenant, cluster) WHERE finished IS NULL AND cluster IS NOT NULL AND holds;
DROP INDEX host_run_one_running;
CREATE UNIQUE INDEX host_run_one_running ON host_run (tenant, address) WHERE state IN ('staging', 'running') AND holds;

-- Of a command, the row in rollout has the counts of its hosts, and who cancelled it.

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION operation_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, state, by_whom)
        VALUES (NEW.tenant, NEW.id, 'operation', NEW.state, NEW.requested_by);
    IF NEW.kind IN ('restart', 'upgrade', 'deploy', 'command') THEN
        INSERT INTO rollout (operation_id, tenant) VALUES (NEW.id, NEW.tenant);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- Output that comes in batches says itself whose it is.
DROP TRIGGER output_belongs ON output;
CREATE TRIGGER output_belongs BEFORE INSERT ON output FOR EACH ROW WHEN (NEW.operation_id IS NULL) EXECUTE FUNCTION output_belongs();
