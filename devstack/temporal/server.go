// Package temporal runs a whole Temporal cluster and its web UI inside this
// process: for development, the demo and tests. Everything listens on
// 127.0.0.1 only.
//
// On Postgres it keeps its state in two databases, temporal and
// temporal_visibility, whose schemas it creates and migrates itself; it goes on
// after a kill -9 where it was. In memory it keeps nothing.
//
// Production runs a Temporal of its own; see docker-compose.yml.
package temporal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/temporal"

	"commissaire/devstack/loopback"
	"commissaire/internal/dispatch"
	"commissaire/workflows"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute // a busy machine takes far longer than Stop says
	pollInterval = 50 * time.Millisecond
)

// Options say where the server keeps its state and what it listens on.
type Options struct {
	// PostgresDSN is the URL of a database on the server to use; its path is
	// ignored. "" keeps everything in memory.
	PostgresDSN string
	// Port of the frontend, 0 for a free one.
	Port int
	// UIPort of the web UI, 0 for a free one.
	UIPort int
	// NoUI leaves the web UI out.
	NoUI bool
	// Namespace is made and prepared for Commissaire; "" is "default".
	Namespace string
	// OneNamespace says that no other one is made while it runs, so that the server need
	// not look for new ones all the time.
	OneNamespace bool
	// LongHistory is from how many events on workflows of a namespace are told to go on in
	// a fresh history, where that is not after 4,096 as everywhere else.
	LongHistory map[string]int
	// Logger gets what the server has to say. It is talkative below
	// slog.LevelError, and at that level still when it stops. nil drops it.
	Logger *slog.Logger
}

// Server is a running Temporal.
type Server struct {
	server temporal.Server
	ui     *ui // nil without one
	addr   string
}

// Start returns once the frontend, the namespace and its search attributes can
// be used: 2 to 3 s on an empty Postgres, under 1 s on a used one or in memory.
// ctx bounds the start, not the life of the server.
func Start(ctx context.Context, o Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start Temporal: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	if o.Namespace == "" {
		o.Namespace = client.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ports, err := choosePorts(o)
	if err != nil {
		return nil, err
	}
	state, err := prepareState(ctx, o.PostgresDSN, logger{o.Logger})
	if err != nil {
		return nil, err
	}
	s := &Server{addr: loopback.Address(ports.frontend)}
	dynamic := dynamicConfig(o.LongHistory)
	if s.server, err = newServer(makeConfig(ports, state), dynamic, ports, logger{o.Logger}); err != nil {
		return nil, err
	}
	if err := s.server.Start(); err != nil {
		return nil, err
	}
	if err := s.untilServing(ctx, o.Namespace); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if o.OneNamespace {
		dynamic.OverrideValue(dynamicconfig.NamespaceCacheRefreshInterval.Key(), namespacesAtRest)
	}
	if o.NoUI {
		return s, nil
	}
	if s.ui, err = startUI(ctx, ports.ui, s.addr, o.Namespace); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func newServer(c *config.Config, dynamic dynamicconfig.Client, p ports, l logger) (temporal.Server, error) {
	authorizer, err := authorization.GetAuthorizerFromConfig(&c.Global.Authorization)
	if err != nil {
		return nil, err
	}
	claims, err := authorization.GetClaimMapperFromConfig(&c.Global.Authorization, l)
	if err != nil {
		return nil, err
	}
	return temporal.NewServer(
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(p.hosts()),
		temporal.WithLogger(l),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(dynamic),
	)
}

// Addr is host:port of the frontend.
func (s *Server) Addr() string { return s.addr }

// UIURL is the address of the web UI, "" without one.
func (s *Server) UIURL() string {
	if s.ui == nil {
		return ""
	}
	return s.ui.url
}

// Stop ends the UI and the server. It takes about a second.
func (s *Server) Stop() error {
	if s.ui != nil {
		s.ui.stop()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.server.Stop() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("Temporal did not stop within %s; what it was doing goes on at its next start", stopTimeout)
	}
}

// untilServing prepares the namespace, then asks a question of every service
// (history, matching, visibility), since each learns of a namespace on its own.
func (s *Server) untilServing(ctx context.Context, namespace string) error {
	options := client.Options{HostPort: s.addr, Namespace: namespace, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))}
	if err := dispatch.Setup(ctx, options); err != nil {
		return err
	}
	c, err := client.NewLazyClient(options)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		err := serves(ctx, c)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is not served: %w", namespace, errors.Join(context.Cause(ctx), err))
		case <-time.After(pollInterval):
		}
	}
}

func serves(ctx context.Context, c client.Client) error {
	const nobody = "commissaire-readiness" // neither a workflow nor a task queue of this name exists
	_, err := c.DescribeWorkflowExecution(ctx, nobody, "")
	var missing *serviceerror.NotFound
	if !errors.As(err, &missing) {
		return fmt.Errorf("history: %w", err)
	}
	if _, err := c.DescribeTaskQueue(ctx, nobody, enumspb.TASK_QUEUE_TYPE_WORKFLOW); err != nil {
		return fmt.Errorf("matching: %w", err)
	}
	query := fmt.Sprintf("%s = '%s'", workflows.AttributeCluster.GetName(), nobody)
	if _, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query}); err != nil {
		return fmt.Errorf("visibility: %w", err)
	}
	return nil
}
