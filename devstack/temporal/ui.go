package temporal

import (
	"context"
	"fmt"
	"net/http"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"

	"commissaire/devstack/loopback"
)

// ui is the web UI, served from assets in this binary.
type ui struct {
	server *uiserver.Server
	url    string
	ended  chan struct{}
}

func startUI(ctx context.Context, port int, frontend, namespace string) (*ui, error) {
	u := &ui{url: "http://" + loopback.Address(port), ended: make(chan struct{})}
	u.server = uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		Host: loopback.IP, Port: port,
		TemporalGRPCAddress: frontend,
		DefaultNamespace:    namespace,
		EnableUI:            true,
		HideLogs:            true,
		DisableNewsFetch:    true,                                // the browser would ask a host outside
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain HTTP, on loopback only
	}))
	go func() {
		defer close(u.ended)
		_ = u.server.Start()
	}()
	for {
		err := u.answers(ctx)
		if err == nil {
			return u, nil
		}
		select {
		case <-ctx.Done():
			u.stop()
			return nil, fmt.Errorf("the web UI does not answer: %w", err)
		case <-time.After(pollInterval):
		}
	}
}

func (u *ui) answers(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	return nil
}

func (u *ui) stop() {
	u.server.Stop()
	<-u.ended
}
