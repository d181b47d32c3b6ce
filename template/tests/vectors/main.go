// Command vectors renders the cases of this folder with docker's own packages and writes ../vectors.json.
//
//	go run . > ../vectors.json
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/cli/command/inspect"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/api/types/image"
)

// Case is one template and what docker makes of it: Want or Error, never both.
//
// Modes: "plain" renders the document as it is; "strict" with missingkey=error; "inspect" as `docker image inspect`
// does; "table" as `docker images` does, once for every row.
type Case struct {
	Mode     string `json:"mode"`
	Data     string `json:"data,omitempty"`
	Template string `json:"template"`
	Want     string `json:"want"`
	Error    string `json:"error,omitempty"`
}

func main() {
	cases := allCases()
	for i := range cases {
		out, err := run(cases[i])
		if err != nil {
			cases[i].Error = err.Error()
		} else {
			cases[i].Want = out
		}
	}
	docs := map[string]json.RawMessage{}
	for name, text := range documents {
		docs[name] = json.RawMessage(text)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(map[string]any{"documents": docs, "headers": headers, "rows": rows, "cases": cases}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(c Case) (string, error) {
	switch c.Mode {
	case "inspect":
		return runInspect(c)
	case "table":
		return runTable(c)
	}
	tmpl, err := templates.Parse(c.Template)
	if err != nil {
		return "", err
	}
	if c.Mode == "strict" {
		tmpl = tmpl.Option("missingkey=error")
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, document(c.Data))
	return out.String(), err
}

// document decodes with Go's int for whole numbers, as a struct would have them, and not float64 for all.
func document(name string) any {
	dec := json.NewDecoder(strings.NewReader(documents[name]))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		panic(err)
	}
	return numbers(v)
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return int(i)
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

func runInspect(c Case) (string, error) {
	raw := []byte(documents[c.Data])
	var typed image.InspectResponse
	if err := json.Unmarshal(raw, &typed); err != nil {
		return "", err
	}
	var out bytes.Buffer
	err := inspect.Inspect(&out, []string{"x"}, c.Template, func(string) (any, []byte, error) { return typed, raw, nil })
	return out.String(), err
}

func runTable(c Case) (string, error) {
	var out bytes.Buffer
	ctx := formatter.Context{Output: &out, Format: formatter.Format(c.Template)}
	err := ctx.Write(newRow(nil), func(format func(formatter.SubContext) error) error {
		for _, r := range rows {
			if err := format(newRow(r)); err != nil {
				return err
			}
		}
		return nil
	})
	return out.String(), err
}

// row has the shape of docker's contexts of `docker images` and `docker history`: a method a column.
type row struct {
	formatter.HeaderContext
	columns map[string]string
}

func newRow(columns map[string]string) *row {
	titles := formatter.SubHeaderContext{}
	for _, h := range headers {
		titles[h[0]] = h[1]
	}
	return &row{formatter.HeaderContext{Header: titles}, columns}
}

func (r *row) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }
func (r *row) ID() string                   { return r.columns["ID"] }
func (r *row) Repository() string           { return r.columns["Repository"] }
func (r *row) Tag() string                  { return r.columns["Tag"] }
func (r *row) Digest() string               { return r.columns["Digest"] }
func (r *row) Size() string                 { return r.columns["Size"] }
func (r *row) CreatedBy() string            { return r.columns["CreatedBy"] }
