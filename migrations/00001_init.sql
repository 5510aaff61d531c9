-- The inventory (tenant, network, cluster, host, host_creds) and the record of
-- everything that happened to it (operation, host_run, step, output).
--
-- Every row carries its tenant. Keys are COLLATE "C", so that lists sort the
-- same in every database. The lists of states mirror internal/fleet; a test
-- compares the two. Ended means: a row has its time in "finished" if and only
-- if its state has ended.

-- +goose Up

CREATE TABLE tenant (
    name    text COLLATE "C" NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenant_pk PRIMARY KEY (name),
    CONSTRAINT tenant_name_given CHECK (name <> '')
);

CREATE TABLE network (
    tenant  text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    type    text NOT NULL,
    options jsonb NOT NULL DEFAULT '{}',
    created timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT network_pk PRIMARY KEY (tenant, name),
    CONSTRAINT network_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT network_name_given CHECK (name <> ''),
    CONSTRAINT network_type CHECK (type IN ('flannel_etcd', 'flannel_server')),
    CONSTRAINT network_options_object CHECK (jsonb_typeof(options) = 'object')
);

-- The network is a name only: deleting one that is in use is allowed.
CREATE TABLE cluster (
    tenant            text COLLATE "C" NOT NULL,
    name              text COLLATE "C" NOT NULL,
    network           text NOT NULL,
    container_manager text NOT NULL DEFAULT '',
    created           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT cluster_pk PRIMARY KEY (tenant, name),
    CONSTRAINT cluster_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT cluster_name_given CHECK (name <> '')
);

-- join_order is the place in the cluster's list of members, which is also the
-- order of a rollout. It means nothing without a cluster.
CREATE TABLE host (
    tenant          text COLLATE "C" NOT NULL,
    address         text COLLATE "C" NOT NULL,
    port            integer NOT NULL DEFAULT 22,
    cluster         text COLLATE "C",
    join_order      bigint NOT NULL DEFAULT 0,
    state           text NOT NULL,
    reason          text NOT NULL DEFAULT '',
    state_since     timestamptz NOT NULL DEFAULT now(),
    state_operation uuid,
    os              text NOT NULL DEFAULT '',
    os_version      text NOT NULL DEFAULT '',
    ostree          boolean NOT NULL DEFAULT false,
    cpus            integer NOT NULL DEFAULT 0,
    memory          integer NOT NULL DEFAULT 0,
    space           bigint NOT NULL DEFAULT 0,
    boot_id         text NOT NULL DEFAULT '',
    last_check      timestamptz,
    source          text NOT NULL DEFAULT '',
    host_key        text,
    host_key_print  text,
    host_key_pinned timestamptz,
    bootstrapped    timestamptz,
    created         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT host_pk PRIMARY KEY (tenant, address),
    CONSTRAINT host_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT host_cluster_fk FOREIGN KEY (tenant, cluster) REFERENCES cluster (tenant, name)
        ON DELETE SET NULL (cluster),
    CONSTRAINT host_address_given CHECK (address <> ''),
    CONSTRAINT host_port_range CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT host_state CHECK (state IN ('investigating', 'bootstrapping', 'active', 'disassociated', 'failed')),
    CONSTRAINT host_failed_says_why CHECK (state <> 'failed' OR reason <> ''),
    CONSTRAINT host_facts_not_negative CHECK (cpus >= 0 AND memory >= 0 AND space >= 0),
    CONSTRAINT host_key_whole CHECK (num_nulls(host_key, host_key_print, host_key_pinned) IN (0, 3))
);

CREATE INDEX host_cluster_members ON host (tenant, cluster, join_order) WHERE cluster IS NOT NULL;

-- sealed is bound to tenant, table and address; key_id names the key that
-- sealed it, so that nobody drops a key that a row still needs.
CREATE TABLE host_creds (
    tenant      text COLLATE "C" NOT NULL,
    address     text COLLATE "C" NOT NULL,
    remote_user text NOT NULL,
    sealed      bytea NOT NULL,
    key_id      bigint NOT NULL,
    changed     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT host_creds_pk PRIMARY KEY (tenant, address),
    CONSTRAINT host_creds_host_fk FOREIGN KEY (tenant, address) REFERENCES host (tenant, address) ON DELETE CASCADE,
    CONSTRAINT host_creds_user_given CHECK (remote_user <> '')
);

CREATE INDEX host_creds_key ON host_creds (key_id);

-- From here on nothing refers to the inventory: the record outlives it.
CREATE TABLE operation (
    id           uuid NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    kind         text NOT NULL,
    cluster      text COLLATE "C",
    host         text COLLATE "C",
    state        text NOT NULL DEFAULT 'pending',
    reason       text NOT NULL DEFAULT '',
    requested_by text NOT NULL DEFAULT '',
    request_id   text NOT NULL DEFAULT '',
    created      timestamptz NOT NULL DEFAULT now(),
    started      timestamptz,
    finished     timestamptz,
    CONSTRAINT operation_pk PRIMARY KEY (id),
    CONSTRAINT operation_kind CHECK (kind IN ('bootstrap', 'restart')),
    CONSTRAINT operation_one_target CHECK (num_nonnulls(cluster, host) = 1),
    CONSTRAINT operation_state CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT operation_pending_not_started CHECK (state <> 'pending' OR started IS NULL),
    CONSTRAINT operation_started CHECK (state NOT IN ('running', 'succeeded') OR started IS NOT NULL),
    CONSTRAINT operation_finished CHECK ((finished IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
);

-- The locks: one unfinished operation per cluster, and one per host.
CREATE UNIQUE INDEX operation_one_per_cluster ON operation (tenant, cluster) WHERE finished IS NULL AND cluster IS NOT NULL;
CREATE UNIQUE INDEX operation_one_per_host ON operation (tenant, host) WHERE finished IS NULL AND host IS NOT NULL;

-- One index per way to list, newest first by id (UUIDv7 sorts by time).
CREATE INDEX operation_by_id ON operation (tenant, id);
CREATE INDEX operation_by_kind ON operation (tenant, kind, id);
CREATE INDEX operation_by_state ON operation (tenant, state, id);
CREATE INDEX operation_by_cluster ON operation (tenant, cluster, id) WHERE cluster IS NOT NULL;
CREATE INDEX operation_by_host ON operation (tenant, host, id) WHERE host IS NOT NULL;
CREATE INDEX operation_pending ON operation (id) WHERE state = 'pending';
CREATE INDEX operation_running ON operation (id) WHERE state = 'running';

CREATE TABLE host_run (
    operation_id uuid NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    address      text COLLATE "C" NOT NULL,
    position     integer NOT NULL,
    state        text NOT NULL DEFAULT 'pending',
    reason       text NOT NULL DEFAULT '',
    boot_id      text NOT NULL DEFAULT '',
    started      timestamptz,
    finished     timestamptz,
    CONSTRAINT host_run_pk PRIMARY KEY (operation_id, address),
    CONSTRAINT host_run_operation_fk FOREIGN KEY (operation_id) REFERENCES operation (id) ON DELETE CASCADE,
    CONSTRAINT host_run_place UNIQUE (operation_id, position),
    CONSTRAINT host_run_state CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'skipped')),
    CONSTRAINT host_run_says_why CHECK (state NOT IN ('failed', 'skipped') OR reason <> ''),
    CONSTRAINT host_run_pending_not_started CHECK (state <> 'pending' OR started IS NULL),
    CONSTRAINT host_run_started CHECK (state NOT IN ('running', 'succeeded') OR started IS NOT NULL),
    CONSTRAINT host_run_finished CHECK ((finished IS NOT NULL) = (state IN ('succeeded', 'failed', 'skipped')))
);

-- The lock: one operation at a time works on a host.
CREATE UNIQUE INDEX host_run_one_running ON host_run (tenant, address) WHERE state = 'running';
CREATE INDEX host_run_by_host ON host_run (tenant, address, operation_id);

-- stored_to is the position up to which output is handled, stored_bytes how
-- much of it is kept, output_size how much was printed in all.
CREATE TABLE step (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    operation_id uuid NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    address      text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    attempt      integer NOT NULL,
    state        text NOT NULL DEFAULT 'running',
    reason       text NOT NULL DEFAULT '',
    exit_code    integer,
    output_size  bigint NOT NULL DEFAULT 0,
    stored_to    bigint NOT NULL DEFAULT 0,
    stored_bytes bigint NOT NULL DEFAULT 0,
    started      timestamptz NOT NULL DEFAULT now(),
    finished     timestamptz,
    CONSTRAINT step_pk PRIMARY KEY (id),
    CONSTRAINT step_host_run_fk FOREIGN KEY (operation_id, address) REFERENCES host_run (operation_id, address) ON DELETE CASCADE,
    CONSTRAINT step_once UNIQUE (operation_id, address, name, attempt),
    CONSTRAINT step_name_given CHECK (name <> ''),
    CONSTRAINT step_attempt_from_one CHECK (attempt >= 1),
    CONSTRAINT step_state CHECK (state IN ('running', 'succeeded', 'failed', 'indeterminate')),
    CONSTRAINT step_output_adds_up CHECK (0 <= stored_bytes AND stored_bytes <= stored_to AND stored_to <= output_size),
    CONSTRAINT step_finished CHECK ((finished IS NOT NULL) = (state IN ('succeeded', 'failed', 'indeterminate')))
);

-- "position" is where the first byte stands in all that the step printed. The
-- chunk after a gap has a larger one than its forerunner's end.
CREATE TABLE output (
    step_id  bigint NOT NULL,
    position bigint NOT NULL,
    data     bytea NOT NULL,
    CONSTRAINT output_pk PRIMARY KEY (step_id, position),
    CONSTRAINT output_step_fk FOREIGN KEY (step_id) REFERENCES step (id) ON DELETE CASCADE,
    CONSTRAINT output_position_not_negative CHECK (position >= 0),
    CONSTRAINT output_not_empty CHECK (octet_length(data) > 0)
);

INSERT INTO tenant (name) VALUES ('default');
INSERT INTO network (tenant, name, type) VALUES ('default', 'default', 'flannel_etcd');
