package commctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"commissaire/api/client"
)

// App is one run of commctl: where it reads and writes, and its connection. All
// verbs are methods of it.
type App struct {
	In  io.Reader
	Out io.Writer // answers and nothing else
	Err io.Writer // errors, prompts, progress
	// Env gives a variable of the environment, "" when it is not set.
	Env func(name string) string
	// Ask puts a question to the person at the terminal. A hidden answer is not
	// shown while it is typed.
	Ask func(question string, hidden bool) (string, error)

	configFile string // --config
	noResolve  bool   // --no-resolve
	connect    func() (*connection, error)

	againTime, againEvery time.Duration // of an order whose answer was lost
}

// New makes an App. ask nil: the terminal of the process.
func New(in io.Reader, out, errs io.Writer, env func(string) string) *App {
	a := &App{In: in, Out: out, Err: errs, Env: env, Ask: askTerminal, againTime: againTime, againEvery: againEvery}
	a.connect = sync.OnceValues(a.newConnection)
	return a
}

// Run carries out a command line without the program's name and gives the exit
// code.
func (a *App) Run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

// root is the whole command tree.
func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "commctl",
		Short: "Command line of Commissaire",
		Long: `commctl asks a Commissaire server for things and gives it orders.

Where the server is and who you are stands in ~/.commissaire.json, or in the file
that --config or the variable COMMCTL_CONFIG names:

  {"endpoint": "https://commissaire.example:8000", "token": "cmst_..."}

'commctl help config' tells all of it.`,
		Example: `  commctl cluster list
  commctl host create --cluster web 192.0.2.10 ~/.ssh/id_ed25519
  commctl cluster upgrade start --watch web
  commctl logs -f web`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.PersistentFlags().StringVar(&a.configFile, "config", "", "configuration `FILE` (default ~/.commissaire.json)")
	root.AddCommand(
		a.clusterCommand(), a.containerManagerCommand(), a.hostCommand(), a.networkCommand(),
		a.runCommand(), a.sourceCommand(), a.inventoryCommand(), a.operationsCommand(), a.logsCommand(), a.waitCommand(),
		a.tokensCommand(), a.joinTokensCommand(), a.whoamiCommand(), a.auditCommand(),
		a.passhashCommand(), a.userDataCommand(), a.versionCommand(),
		configTopic(), exitCodesTopic(),
	)
	a.completions(root)
	return root
}

// group makes a command that has verbs and does nothing by itself.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("say what to do with it; '%s --help' lists the verbs", cmd.CommandPath())
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("unknown verb %q; did you mean %s?", args[0], strings.Join(near, " or "))
		}
		return fmt.Errorf("unknown verb %q; '%s --help' lists the verbs", args[0], cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(verbs...)
	return cmd
}

// client gives the generated client over the configured endpoints. What it does
// about dead endpoints is told on standard error.
func (a *App) client() (*client.ClientWithResponses, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return client.NewClientWithResponses(c.base(), client.WithHTTPClient(c.doer(a.Err)))
}

// colours says whether what goes to a stream may be coloured: it is a terminal that
// knows colours, and nobody said NO_COLOR (no-color.org).
func (a *App) colours(stream io.Writer) bool {
	return isTerminal(stream) && a.Env("NO_COLOR") == "" && a.Env("TERM") != "dumb"
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
