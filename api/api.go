package api

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"commissaire/api/docs"
	"commissaire/api/gen"
	"commissaire/internal/authn"
	"commissaire/internal/fleet"
)

// Deps is what the API works with.
type Deps struct {
	Store      Store // of one tenant
	Changes    Changes
	Dispatcher Dispatcher
	Authn      *authn.Chain
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// SelfAuths are the paths that need no credentials, as requests write them.
	SelfAuths []string
	// Sources are the host sources of the settings, sorted by name. Only workers ask them.
	Sources   []fleet.Source
	Logger    *slog.Logger
	Metrics   *prometheus.Registry // served under /metrics; the API adds its own metrics to it
	Version   Version
	Readiness []Check

	metrics *metrics // made by New
}

// handlers implements the strict server interface of gen.
type handlers struct {
	Deps
	streams chan struct{} // holds one for each open event stream
}

var _ gen.StrictServerInterface = (*handlers)(nil)

// New gives the handler of the whole API: /api/v0 and the pages beside it.
func New(d Deps) http.Handler {
	d.metrics = newMetrics(d.Metrics)
	var h http.Handler = routes(d)
	h = checkPath(h)
	h = authenticate(h, d)
	h = limit(h)
	h = recoverPanics(h) // inside the log, which so sees what a panic was answered with
	h = observe(h, d.Logger, d.metrics)
	return identify(h, d.TrustedProxies)
}

// routes is every path there is; Echo goes no further than this.
func routes(d Deps) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) { writeProblem(c.Response(), c.Request(), err) }
	e.Use(match(documented()), d.authorize, validate, d.audit)
	gen.RegisterHandlers(e, gen.NewStrictHandler(&handlers{Deps: d, streams: make(chan struct{}, maxStreams)}, nil))
	d.registerPages(e)
	return e
}

// registerPages serves what is a document and not a resource.
func (d Deps) registerPages(e *echo.Echo) {
	e.GET("/", func(c echo.Context) error { return c.Redirect(http.StatusFound, "/docs") })
	e.GET("/openapi.yaml", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/yaml", document) })
	e.GET("/metrics", echo.WrapHandler(metricsPage(d.Metrics)))
	page := echo.WrapHandler(docs.Pages("/openapi.yaml"))
	e.GET("/docs", page)
	e.GET("/docs/:file", func(c echo.Context) error {
		if !docs.Has(c.Param("file")) {
			return errNoRoute()
		}
		return page(c)
	})
	e.GET("/docs/problems/:type", problemPage)
}

// The limits of one request. A client that is slower is cut off.
const (
	headerTimeout  = 10 * time.Second
	readTimeout    = 30 * time.Second
	writeTimeout   = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	requestTimeout = 30 * time.Second // for the handler; reads of Postgres are far below
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 1 << 20
)

// NewHTTPServer wraps a handler in a server whose timeouts are all set, so that
// slow clients cannot hold connections for ever.
func NewHTTPServer(addr string, h http.Handler, logger *slog.Logger) *http.Server {
	stop := make(chan struct{})
	server := &http.Server{
		Addr:              addr,
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// net/http would answer OPTIONS * itself, without asking for credentials.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(&connectionLog{logger: logger, shown: rate.NewLimiter(1, 10)}, "", 0),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), stopKey{}, (<-chan struct{})(stop))
		},
	}
	server.RegisterOnShutdown(sync.OnceFunc(func() { close(stop) }))
	return server
}

type stopKey struct{}

// stopping is closed when the server begins to stop. Requests may finish then, but
// a stream has to end.
func stopping(ctx context.Context) <-chan struct{} {
	stop, _ := ctx.Value(stopKey{}).(<-chan struct{})
	return stop
}
