package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"

	"commissaire/workflows"
)

// Connection says where Temporal is. Empty members are taken from the SDK's
// own environment (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
// TEMPORAL_TLS_*, TEMPORAL_PROFILE), so that Temporal Cloud and mTLS work.
type Connection struct {
	Address   string
	Namespace string
}

// ClientOptions gives the options of a Temporal client.
func (c Connection) ClientOptions(logger *slog.Logger) (client.Options, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return options, fmt.Errorf("settings of the Temporal client: %w", err)
	}
	if c.Address != "" {
		options.HostPort = c.Address
	}
	if c.Namespace != "" {
		options.Namespace = c.Namespace
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	options.Logger = log.NewStructuredLogger(logger)
	return options, nil
}

// retention is how long Temporal keeps closed workflows in a namespace that we
// create. The record in Postgres outlives it.
const retention = 7 * 24 * time.Hour

// setupTimeout bounds Setup: Temporal may come up after us, but somebody waits.
const setupTimeout = 5 * time.Minute

// Setup creates the namespace and the search attributes that are missing, and
// waits until both can be used. Repeating it changes nothing. It says what it
// waits for, and ends at once when Temporal refuses us.
func Setup(ctx context.Context, options client.Options) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	c, err := client.NewLazyClient(options)
	if err != nil {
		return fmt.Errorf("temporal client: %w", err)
	}
	defer c.Close()
	for said := ""; ; {
		err := setup(ctx, c, options.Namespace)
		var denied *serviceerror.PermissionDenied
		var invalid *serviceerror.InvalidArgument
		switch {
		case err == nil:
			return nil
		case errors.As(err, &denied), errors.As(err, &invalid):
			return fmt.Errorf("set up Temporal namespace %s: %w", options.Namespace, err)
		case !errors.Is(err, errAdded) && err.Error() != said && options.Logger != nil:
			said = err.Error()
			options.Logger.Warn("waiting for Temporal", "namespace", options.Namespace, "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("set up Temporal namespace %s: %w", options.Namespace, errors.Join(context.Cause(ctx), err))
		case <-time.After(100 * time.Millisecond): // namespaces and attributes reach every part of Temporal after a moment
		}
	}
}

// CheckNamespace says whether Temporal answers and has the namespace.
func CheckNamespace(ctx context.Context, c client.Client, namespace string) error {
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	return err
}

func setup(ctx context.Context, c client.Client, namespace string) error {
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	var missing *serviceerror.NamespaceNotFound
	if errors.As(err, &missing) {
		_, err = c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(retention),
		})
		var exists *serviceerror.NamespaceAlreadyExists
		if errors.As(err, &exists) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return err
	}
	missingAttributes := map[string]enumspb.IndexedValueType{}
	for _, name := range []string{
		workflows.AttributeCluster.GetName(), workflows.AttributeHost.GetName(), workflows.AttributeKind.GetName(), workflows.AttributeState.GetName(),
	} {
		if _, ok := have.GetCustomAttributes()[name]; !ok {
			missingAttributes[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	if len(missingAttributes) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missingAttributes})
	if err == nil {
		err = errAdded
	}
	return err
}

// errAdded asks for another look, which must find what was added.
var errAdded = errors.New("search attributes were added just now")
