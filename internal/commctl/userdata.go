package commctl

import (
	"bytes"
	"context"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// partHandler is what cloud-init runs on the new machine.
//
//go:embed parthandler.py
var partHandler string

const defaultCloudConfig = "#cloud-config\nfinal_message: Finished booting\n"

// hostPart is what the part handler reads. Only one of the two forms is filled:
// that of a join token, or the old one of shared credentials.
type hostPart struct {
	Endpoint           any    `json:"endpoint"` // a URL, or a list of them
	JoinToken          string `json:"join_token,omitempty"`
	PublicKey          string `json:"public_key,omitempty"`
	Username           string `json:"username,omitempty"`
	Password           string `json:"password,omitempty"`
	SSHKeyPath         string `json:"ssh_key_path,omitempty"`
	Cluster            string `json:"cluster,omitempty"`
	RemoteUser         string `json:"remote_user,omitempty"`
	AuthorizedKeysPath string `json:"authorized_keys_path,omitempty"` // when not given, that of remote_user
	CA                 string `json:"ca,omitempty"`                   // PEM, for an endpoint that no public CA vouches for
}

type userDataFlags struct {
	endpoints      []string
	host           hostPart
	askPassword    bool
	shared         bool
	expires        time.Duration
	cloudInit, out string
	caFile         string
}

func (a *App) userDataCommand() *cobra.Command {
	var f userDataFlags
	cmd := &cobra.Command{
		Use: "user-data", Short: "Print cloud-init user-data with which a new machine adds itself", Args: cobra.NoArgs,
		Long: `Print cloud-init user-data with which a new machine adds itself.

It holds a join token, made for it now, which serves one machine and then no other.
The machine lets the server's public key in and sends its own public host key; no
private key leaves it.

cloud-init on the machine must run on Python 3.6 or newer. That of RHEL 7 and CentOS 7
does not: add such machines by 'commctl host create'.

With --shared-credentials the user-data is as it was before there were join tokens:
it serves any number of machines, holds username and password of the server, and
each machine makes a key pair and sends the private key.`,
		Example: "  commctl user-data -e https://commissaire.example:8000 -c web -o user-data.txt\n" +
			"  commctl user-data -e https://commissaire.example:8000 -c web --shared-credentials -u cloud -p",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.userData(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.endpoints, "endpoint", "e", nil, "`URL` of the server, as the new machine reaches it; may be repeated")
	flags.StringVarP(&f.host.Cluster, "cluster", "c", "", "`NAME` of the cluster to join")
	flags.StringVarP(&f.host.RemoteUser, "remote-user", "r", fleet.DefaultRemoteUser, "`USER` who logs in; is made when not there, and may use sudo")
	flags.StringVarP(&f.host.AuthorizedKeysPath, "authorized-keys-path", "a", "", "`FILE` on the machine that lets USER in (default that of USER, of root /root/.ssh/authorized_keys)")
	flags.DurationVar(&f.expires, "expires", fleet.DefaultJoinTokenLife, "how long the join token is good, at most "+fleet.MaxJoinTokenLife.String())
	flags.StringVar(&f.caFile, "ca-file", "", "PEM `FILE` with the CA of the server, when it is not a public one")
	flags.StringVarP(&f.cloudInit, "cloud-init", "C", "", "`FILE` to use as the cloud-config part")
	flags.StringVarP(&f.out, "outfile", "o", "", "write to `FILE`, for you alone to read")
	flags.BoolVar(&f.shared, "shared-credentials", false, "the form of before: username, password and a private key")
	flags.StringVarP(&f.host.Username, "username", "u", "", "`NAME` to show to the server; with --shared-credentials")
	flags.BoolVarP(&f.askPassword, "password", "p", false, "ask for the password to show to the server; with --shared-credentials")
	flags.StringVarP(&f.host.SSHKeyPath, "ssh-key-path", "s", "/root/.ssh/id_rsa", "`FILE` on the machine with its private key, made when not there; with --shared-credentials")
	_ = cmd.MarkFlagRequired("endpoint")
	return cmd
}

func (a *App) userData(cmd *cobra.Command, f userDataFlags) (err error) {
	if err := f.complete(cmd); err != nil {
		return err
	}
	cloudConfig := defaultCloudConfig
	if f.cloudInit != "" {
		text, err := a.readFile(cmd.Context(), f.cloudInit)
		if err != nil {
			return fmt.Errorf("--cloud-init: %w", err)
		}
		cloudConfig = string(text)
	}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			err = fmt.Errorf("%s holds no certificate in PEM form", f.caFile)
		}
		if err != nil {
			return fmt.Errorf("--ca-file: %w", err)
		}
		f.host.CA = string(text)
	}
	out := a.Out
	if f.out != "" { // opened before a token is made, which would be lost
		file, failed := openPrivate(f.out)
		if failed != nil {
			return fmt.Errorf("--outfile: %w", failed)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	fill := a.joinToken
	if f.shared {
		fill = a.sharedCredentials
	}
	if err := fill(cmd.Context(), &f); err != nil {
		return err
	}
	text, err := userDataText(cloudConfig, f.host)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// complete checks the flags against each other and sets what follows from them.
func (f *userDataFlags) complete(cmd *cobra.Command) error {
	targets, err := endpoints(f.endpoints).parse()
	if err != nil {
		return fmt.Errorf("--endpoint: %w", err)
	}
	f.host.Endpoint = targets[0].String()
	if len(targets) > 1 {
		var all []string
		for _, u := range targets {
			all = append(all, u.String())
		}
		f.host.Endpoint = all
	}
	if f.host.RemoteUser, err = fleet.ParseRemoteUser(f.host.RemoteUser); err != nil {
		return fmt.Errorf("--remote-user %w", blame(err))
	}
	if f.host.AuthorizedKeysPath == "" && f.host.RemoteUser == fleet.DefaultRemoteUser {
		f.host.AuthorizedKeysPath = "/root/.ssh/authorized_keys"
	}
	if f.shared && cmd.Flags().Changed("expires") {
		return errors.New("--expires is that of a join token, which --shared-credentials does without")
	}
	if f.shared {
		return nil
	}
	for _, name := range []string{"username", "password", "ssh-key-path"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s needs --shared-credentials; without it a join token takes the place of credentials", name)
		}
	}
	f.host.SSHKeyPath = ""
	return nil
}

// sharedCredentials asks for the password, when it is wanted.
func (a *App) sharedCredentials(_ context.Context, f *userDataFlags) error {
	if !f.askPassword {
		return nil
	}
	typed, err := a.Ask("Password: ", true)
	if err != nil {
		return fmt.Errorf("--password: %w", err)
	}
	f.host.Password = typed
	return nil
}

// joinToken has the server make a join token.
func (a *App) joinToken(ctx context.Context, f *userDataFlags) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	body := client.JoinTokenPost{Cluster: f.host.Cluster, RemoteUser: f.host.RemoteUser, ExpiresIn: fleet.Lasting(f.expires)}
	made, err := fetch[client.NewJoinToken](ctx, func(ctx context.Context) (*http.Response, error) { return c.CreateJoinToken(ctx, body) })
	if err != nil {
		return err
	}
	f.host.JoinToken, f.host.PublicKey = made.Token, made.PublicKey
	return nil
}

// userDataText makes the MIME message. The handler comes first: cloud-init skips a
// part whose handler it does not know yet.
func userDataText(cloudConfig string, host hostPart) ([]byte, error) {
	members, err := json.MarshalIndent(host, "", "  ")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%q\nMIME-Version: 1.0\n\n", w.Boundary())
	for _, part := range []struct{ kind, file, text string }{
		{"text/part-handler", "part-handler.py", partHandler},
		{"text/cloud-config", "cloud-init.txt", cloudConfig},
		{"text/x-commissaire-host", "commissaire-host.json", string(members) + "\n"},
	} {
		p, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Type":              {part.kind + `; charset="utf-8"`},
			"Mime-Version":              {"1.0"},
			"Content-Transfer-Encoding": {"base64"},
			"Content-Disposition":       {fmt.Sprintf("attachment; filename=%q", part.file)},
		})
		if err != nil {
			return nil, err
		}
		const line = 76 // RFC 2045, 6.8
		for text := base64.StdEncoding.EncodeToString([]byte(part.text)); text != ""; {
			n := min(line, len(text))
			fmt.Fprintln(p, text[:n])
			text = text[n:]
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return []byte(strings.ReplaceAll(b.String(), "\r\n", "\n")), nil
}

// openPrivate opens a file for writing that nobody else can read, whatever it was
// before.
func openPrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
