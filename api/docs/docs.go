// Package docs serves the interactive documentation and the pages behind the
// type URLs of problem documents. Everything comes out of the binary; a
// browser that shows it asks no other server.
package docs

import (
	"net/http"
	"slices"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// policy makes the browser refuse what the page must not do: reach another
// server. The page's own script is inline.
const policy = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"

// files are the parts of the page.
var files = []string{
	"swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-16x16.png", "favicon-32x32.png", "oauth2-redirect.html",
}

// Has says whether a file is part of the page.
func Has(file string) bool { return slices.Contains(files, file) }

// Pages serves /docs and the files under it. document is the path of the
// OpenAPI document.
func Pages(document string) http.Handler {
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title:       "Commissaire",
		SwaggerJSON: document,
		BasePath:    "/docs/",
		SettingsUI: map[string]string{
			"tryItOutEnabled":          "true",
			"defaultModelsExpandDepth": "1",
			"docExpansion":             `"list"`,
		},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		ui.ServeHTTP(w, r)
	})
}
