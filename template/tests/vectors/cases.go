package main

import (
	"fmt"
	"strings"
)

func allCases() []Case {
	var cases []Case
	add := func(mode, data string, templates ...string) {
		for _, t := range templates {
			cases = append(cases, Case{Mode: mode, Data: data, Template: t})
		}
	}
	add("plain", "misc", plain...)
	add("plain", "misc", parseErrors...)
	add("plain", "misc", execErrors...)
	add("plain", "string", `{{.}}`, `{{. | upper}}`, `{{len .}}`, `{{.Foo}}`, `{{range .}}{{.}}{{end}}`, `{{index . 0}}`)
	add("plain", "number", `{{.}}`, `{{range .}}{{.}},{{end}}`, `{{range $i := .}}{{$i}},{{end}}`, `{{range $i, $e := .}}{{end}}`, `{{printf "%03d" .}}`, `{{.a.b}}`)
	add("plain", "null", `{{.}}`, `{{json .}}`, `{{.Foo}}`, `{{if .}}yes{{else}}no{{end}}`, `{{range .}}x{{else}}none{{end}}`, `{{index . "a"}}`, `{{len .}}`, `{{print .}}`, `{{join . ","}}`, `{{eq . nil}}`)
	add("plain", "array", `{{range .}}{{.n}} {{end}}`, `{{(index . 1).n}}`, `{{json .}}`, `{{.}}`, `{{.n}}`, `{{range $i, $e := .}}{{$i}}={{$e.n}};{{end}}`)
	add("strict", "misc", strict...)
	add("strict", "null", `{{.Foo}}`, `{{.}}`)
	add("inspect", "image", inspects...)
	add("inspect", "bare", inspects...)
	add("table", "", tables...)
	// Depth: what is allowed must work, what is not must be an error.
	add("plain", "misc", strings.Repeat("(", 50)+".i"+strings.Repeat(")", 50), "{{"+strings.Repeat("(", 50)+".i"+strings.Repeat(")", 50)+"}}")
	for _, verb := range strings.Fields("v s d q x X t f e g G E F b o c U T p +v #v") {
		for _, arg := range []string{".i", ".neg", ".f", ".s", ".quote", ".t", ".nothing", ".list", ".ints", ".mixed", ".m", ".missing"} {
			// Go types that JSON has no words for (%T, %p, %#v of maps) are out of scope.
			// So are Go's binary and hexadecimal forms of floating-point numbers.
			if strings.Contains("x X b", verb) && (arg == ".f" || arg == ".mixed") {
				continue
			}
			if (verb == "T" || verb == "#v" || verb == "p") && arg != ".i" && arg != ".s" && arg != ".f" && arg != ".t" {
				continue
			}
			add("plain", "misc", fmt.Sprintf("{{printf \"%%%s\" %s}}", verb, arg))
		}
	}
	return cases
}

var plain = []string{
	// Text, comments, trimming.
	``, `plain text`, "line one\nline two\n", `{ } }} { {x} %d`, "{{.s}}", "a{{.s}}b{{.i}}c",
	"{{/* a comment */}}x", "x{{- /* trimmed */ -}}  y", "{{/* multi\nline */}}{{.s}}",
	"a  {{- .s -}}  b", "a \n\t{{- .s}} b", "a {{.s -}} \n b", "{{- .s -}}", "{{ .s }}", "{{\n.s\n}}", "a{{- -1 -}}b", "{{-3}}", "  {{- if .t -}}  yes  {{- end -}}  ",
	// Literals.
	`{{"text"}}`, "{{`raw \\n text`}}", `{{"esc \t \" \\ \u00e9 \x41 \101 \U0001F600"}}`, `{{1}}`, `{{-5}}`, `{{+5}}`, `{{0x1F}}`, `{{0b101}}`, `{{0o17}}`, `{{017}}`, `{{1_000}}`, `{{1.5}}`, `{{1e3}}`, `{{1e21}}`, `{{0x1p4}}`, `{{.5}}`, `{{'a'}}`, `{{'\n'}}`, `{{'世'}}`, `{{true}}`, `{{false}}`, `{{print nil}}`,
	// How values print.
	`{{.i}} {{.zero}} {{.neg}} {{.big}} {{.max}}`, `{{.f}} {{.tiny}} {{.large}} {{.avogadro}} {{.f20}} {{.round}}`, `{{.t}} {{.n}} {{.nothing}} {{.missing}}`,
	`{{.list}} {{.ints}} {{.elist}} {{.words}}`, `{{.mixed}}`, `{{.m}}`, `{{.emap}} {{.people}}`, `{{.uni}}`, `{{.quote}}`, `{{.missing.deeper.still}}`,
	// Fields, chains, variables.
	`{{.m.a}} {{.m.c.d}} {{.m.c.e}}`, `{{.nested.x.y.z}}`, `{{$.s}}`, `{{$x := .s}}{{$x}}`, `{{$x := .m}}{{$x.c.d}}`, `{{$x := 1}}{{$x = 2}}{{$x}}`, `{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}`, `{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}`,
	`{{(.m).a}}`, `{{(index .people 0).name}}`, `{{(.m.c).d}}`, `{{$x := (index .people 1)}}{{$x.name}}`, `{{with $x := 5}}{{$x}}{{.}}{{end}}`, `{{$}}`, `{{$n := .}}{{$n.i}}`, `{{$a := 1}}{{$b := $a}}{{$b}}`,
	// if, with, range.
	`{{if .t}}yes{{end}}`, `{{if .n}}yes{{else}}no{{end}}`, `{{if .zero}}a{{else if .i}}b{{else}}c{{end}}`, `{{if .missing}}a{{else}}b{{end}}`, `{{if .elist}}a{{else}}b{{end}}`, `{{if .emap}}a{{else}}b{{end}}`, `{{if .empty}}a{{else}}b{{end}}`, `{{if .m}}a{{end}}`, `{{if .f}}a{{end}}`, `{{if 0.0}}a{{else}}b{{end}}`,
	`{{with .m}}{{.a}}{{end}}`, `{{with .missing}}a{{else}}b{{end}}`, `{{with .empty}}a{{else with .s}}b{{.}}{{else}}c{{end}}`, `{{with .m}}{{$.s}}{{end}}`, `{{with $y := .m}}{{$y.b}}{{end}}`,
	`{{range .list}}{{.}},{{end}}`, `{{range .elist}}x{{else}}none{{end}}`, `{{range $i, $e := .list}}{{$i}}={{$e}} {{end}}`, `{{range $e := .list}}{{$e}}{{end}}`, `{{range .m}}{{.}};{{end}}`, `{{range $k, $v := .m}}{{$k}}={{$v}};{{end}}`, `{{range .emap}}x{{else}}none{{end}}`, `{{range .nothing}}x{{else}}none{{end}}`, `{{range .missing}}x{{else}}none{{end}}`, `{{range 3}}{{.}}{{end}}`, `{{range $i := 3}}{{$i}}{{end}}`, `{{range 0}}x{{else}}none{{end}}`, `{{range .i}}{{if eq . 3}}{{break}}{{end}}{{.}}{{end}}`,
	`{{range .list}}{{if eq . "y"}}{{continue}}{{end}}{{.}}{{end}}`, `{{range .list}}{{if eq . "y"}}{{break}}{{end}}{{.}}{{end}}`, `{{range .people}}{{.name}}:{{range .tags}}{{.}}{{else}}-{{end}} {{end}}`, `{{range $i, $p := .people}}{{if $i}}, {{end}}{{$p.name}} is {{.age}}{{end}}`, `{{$last := ""}}{{range .list}}{{$last = .}}{{end}}{{$last}}`, `{{range $i, $x := .list}}{{range $j, $y := $.ints}}{{$i}}{{$j}}{{$x}}{{$y}} {{end}}{{end}}`, `{{$i := 9}}{{range $i = .ints}}{{end}}{{$i}}`, `{{$k := 0}}{{$v := 0}}{{range $k, $v = .ints}}{{end}}{{$k}}{{$v}}`,
	// Pipelines and parentheses.
	`{{.s | upper}}`, `{{.s | upper | printf "%s-%s" "x"}}`, `{{"a" | printf "%s%s" "b" | printf "%q"}}`, `{{printf "%d %s" (len .list) (upper .s)}}`, `{{(((.s)))}}`, `{{.list | len}}`, `{{.list | json}}`, `{{len (index .people 0).tags}}`, `{{.m | json | len}}`, `{{. | len}}`, `{{.i | eq 42}}`, `{{upper (join .list "-")}}`, `{{"x" | eq .s | not}}`,
	// Logic and comparison.
	`{{and .t .s}} {{and .n .s}} {{or .n .s}} {{or .empty .zero}} {{not .t}} {{not .missing}}`, `{{and 1 2 3}} {{or 0 "" "z"}}`, `{{and .t (or .n .i)}}`, `{{or .missing "default"}}`, `{{and .n (index .list 99)}}`, `{{or .t (index .list 99)}}`, `{{.s | and .t}} {{.s | or .n}}`, `{{and .missing}}`, `{{or .missing .nothing}}`,
	`{{eq .i 42}} {{eq .i 41 42}} {{ne .i 42}} {{lt .i 43}} {{le .i 42}} {{gt .i 41}} {{ge .i 43}}`, `{{eq .s "hello"}} {{eq .s "a" "b"}} {{lt "a" "b"}} {{gt .s "a"}}`, `{{eq .f 1.5}} {{lt .f 2.0}} {{eq .round 3.0}}`, `{{eq .t true}} {{eq .t .n}}`, `{{eq .missing nil}}`, `{{eq .nothing nil}} {{ne .nothing nil}}`, `{{eq .nothing .missing}}`, `{{eq .missing 1}}`, `{{ne .missing "a"}}`, `{{eq 1 1 "a"}}`,
	// index, slice, len.
	`{{index .list 0}} {{index .list 2}}`, `{{index .m "a"}} {{index .m "c" "d"}} {{index .m "c" "e" 1}}`, `{{index . "with-dash"}} {{index . "a.b"}}`, `{{index .m "missing"}}`, `{{index .mixed 5 1}}`, `{{index .list}}`, `{{index .s 1}}`, `{{index .mixed 4}}`, `{{.mixed | index}}`, `{{index (index .mixed 6) "k"}}`,
	`{{slice .list 1}} {{slice .list 1 2}} {{slice .list}} {{slice .list 3}} {{slice .list 1 2 2}}`, `{{slice .s 1}} {{slice .s 1 3}} {{slice .long 0 5}}`, `{{len .list}} {{len .m}} {{len .s}} {{len .uni}} {{len .elist}} {{len .emap}}`,
	// print, println, printf.
	`{{print .s .i}} {{print 1 2}} {{print "a" "b"}} {{print "a" 1 2 "b"}} {{print}}`, `{{println .s .i}}`, `{{println}}x`, `{{print .nothing .missing}}`, `{{println .nothing .list .m}}`, `{{printf "%s" .s}}`, `{{printf "%d items, %v%%" 3 .f}}`, `{{printf "%5d|%-5d|%05d|%+d|% d|%x|%X|%o|%b|%#x|%#o" 42 42 42 42 42 42 42 42 42 42 42}}`, `{{printf "%8s|%-8s|%.2s|%8.2s|%q|%x|% x|%#q" .s .s .s .s .s .s .s .s}}`, `{{printf "%f|%.2f|%8.3f|%-8.1f|%e|%g|%G|%E|%+.1f|%08.2f" .f .f .f .f .f .f .f .f .f .f}}`, `{{printf "%v %v %v" .list .m .nothing}}`, `{{printf "%t" .t}}`, `{{printf "%c %U %q" 65 65 65}}`, `{{printf "%*d" 5 42}}`, `{{printf "%[2]s %[1]s" "a" "b"}}`, `{{printf "%d"}}`, `{{printf "%d" "x"}}`, `{{printf "x" 1}}`, `{{printf "%z" 1}}`, `{{printf "%s %s" "a"}}`, `{{printf "%!"}}`, `{{printf "100%"}}`, `{{printf "%6.2f%%" 12.345}}`, `{{printf "%s" .list}}`, `{{printf "%d" .ints}}`, `{{printf "%q" .list}}`, `{{printf "%s" .i}}`, `{{printf "%d" .f}}`, `{{printf "%5t|%-7t|" true false}}`, `{{printf "%05s|%-05d|%+q|%x" "ab" 3 "é" "é"}}`, `{{printf "%6v|%-6v|%06v" 1 2 3}}`, `{{printf "%10v|" .ints}}`, `{{printf "%.3v|%.1v" "abcdef" .f}}`, `{{printf "%.*f" 2 3.14159}}`, `{{printf "%[1]d %[1]x"  10}}`, `{{printf "%[5]d" 1}}`, `{{printf "%v %v" 1e6 1e20}}`, `{{printf "%v" 100000000.0}}`, `{{printf "%s" nil}}`, `{{printf "%v" .missing}}`, `{{printf "%T %T %T %T" 1 "a" 1.5 true}}`, `{{printf .s}}`, `{{printf "%v|%6.3v|%s" .mixed 3.14159 .m}}`, `{{printf "%x" .list}}`, `{{printf "%+v %#v %#v %#v" .list "a\"b" 1 true}}`,
	`{{html "<a href='x'>&\"</a>"}}`, `{{js "it's <b> \"q\" \\ =&\n世"}}`, `{{urlquery "a b&c=d/é~*"}}`, `{{html .m}}`, `{{html .nothing}}`,
	// docker's own functions.
	`{{json .s}} {{json .i}} {{json .f}} {{json .t}} {{json .nothing}} {{json .missing}}`, `{{json .m}}`, `{{json .mixed}}`, `{{json .quote}}`, `{{json .uni}}`, `{{json .}}`, `{{json "a<b>&c"}}`, `{{json .large}} {{json .tiny}} {{json .avogadro}} {{json .round}}`, "{{json \"\\x7f\\x01\\u2028\"}}", `{{json 1.0}} {{json 2.50}} {{json 1e21}} {{json 1e-7}} {{json 1e20}}`,
	`{{split .csv ","}}`, `{{index (split .csv ",") 1}}`, `{{range split .csv ","}}[{{.}}]{{end}}`, `{{json (split "a" "")}}`, `{{json (split "abc" "")}}`, `{{json (split "" ",")}}`, `{{json (split "é世" "")}}`, `{{.csv | split "x,y"}}`,
	`{{join .list ", "}}`, `{{join .mixed "|"}}`, `{{join .ints "-"}}`, `{{join .elist "-"}}`, `{{join .m ","}}`, `{{join .nothing ","}}`, `{{join .missing ","}}`, `{{join (split .csv ",") "+"}}`, `{{join .words "/"}}`, `{{join (slice .list 1) "+"}}`,
	`{{title "hello wide world"}} {{title "ab-cd ef_gh i.j"}} {{title .uni}} {{title "it's"}}`, `{{lower "ABC É"}} {{upper "abc éß"}}`, `{{pad .s 2 3}}|`, `{{pad "" 2 3}}|`, `{{truncate .s 3}} {{truncate .s 99}} {{truncate .s 0}}|{{truncate .s 5}}`,
	// Templates.
	`{{define "x"}}[{{.}}]{{end}}{{template "x" .s}}{{template "x" 1}}`, `{{template "x" .s}}{{define "x"}}[{{.}}]{{end}}`, `{{define "x"}}none{{end}}{{template "x"}}`, `{{block "x" .s}}<{{.}}>{{end}}`, `{{define "x"}}{{.}}{{if gt . 0}}{{template "y" .}}{{end}}{{end}}{{define "y"}}!{{end}}{{template "x" 1}}`, `{{define "a"}}{{$x := 1}}{{$x}}{{end}}{{$x := 2}}{{template "a"}}{{$x}}`, `{{define "x"}}{{end}}{{define "x"}}second{{end}}{{template "x"}}`, `{{define "a"}}{{$.s}}{{end}}{{template "a" .}}`, `{{break}}`, `{{define "n"}}{{.}}{{end}}{{template "n" .missing}}`, "{{define `raw`}}r{{end}}{{template `raw`}}",
}

var parseErrors = []string{
	`{{`, `{{.s`, `{{.s}`, `text {{`, "a\nb {{.s", "{{.s\n", `{{}}`, `{{ }}`, `{{/*`, `{{/* x */`, `{{/* x */ }}`, `{{"abc}}`, "{{`abc}}", `{{'a}}`, `{{'ab'}}`, `{{"\q"}}`, `{{nosuch .s}}`, `{{.s | nosuch}}`, `{{$x}}`, `{{$x := }}`, `{{$x = 1}}`, `{{end}}`, `{{else}}`, `{{if}}{{end}}`, `{{if .t}}`, `{{if .t}}x`, `{{if .t}}x{{else}}`, `{{if .t}}a{{else}}b{{else}}c{{end}}`, `{{range}}{{end}}`, `{{range .list}}`, `{{with}}x{{end}}`, `{{.s .}`, `{{(.s}}`, `{{.s)}}`, `{{()}}`, `{{|}}`, `{{.s |}}`, `{{| .s}}`, `{{.s | .i}}`, `{{.s | 1}}`, `{{.s | "a"}}`, `{{1 | 2}}`, `{{.s,}}`, `{{.s ;}}`, `{{.s := 1}}`, `{{:}}`, `{{$x, $y := .list}}`, `{{range $x, $y, $z := .list}}{{end}}`, `{{range $x, 1}}{{end}}`, `{{template}}`, `{{template .s}}`, `{{template "x" 1 2 |}}`, `{{define}}`, `{{define "x"}}`, `{{define "x"}}a{{else}}b{{end}}`, `{{define .s}}{{end}}`, `{{define "x"}}a{{end}}{{define "x"}}b{{end}}`, `{{if .t}}{{define "x"}}{{end}}{{end}}`, `{{continue}}`, `{{range .list}}{{break 1}}{{end}}`, `{{if .t}}{{end}}{{end}}`, `{{.s.}}`, `{{.s..i}}`, `{{. .s}}`, `{{.s+1}}`, `{{.with-dash}}`, `{{1a}}`, `{{0x}}`, `{{1.2.3}}`, `{{99999999999999999999}}`, `{{1+2}}`, `{{"a".b}}`, `{{1.b}}`, `{{nil.x}}`, `{{true.x}}`, `{{@}}`, `{{é}}`, "{{\x01}}", `{{#}}`, `{{!}}`, `{{.s -}`, "{{if .t}}\n\n{{.x", "{{\"a\nb\"}}", "\n\n{{nosuch}}", `{{end .}}`, `{{else .}}`, `{{if .t}}{{else if}}{{end}}`, `{{block}}`, `{{block "x"}}{{end}}`, `{{block "x" .}}`, `{{ .s }} {{ .i`, `{{ "unterminated }} and more`, `{{%}}`, `{{a b}}`, `{{$x := 1 | nosuch}}`, `{{ . | json | }}`, `{{json .s]}}`, `{{😀}}`, `{{.s "x"y}}`, `{{break}}{{end}}`, `{{_}}`, `{{$é}}`, `{{index .list 0]}}`, `{{.list[0]}}`, `{{abcdefghijklmnop "quoted text that is long"`, `{{if .t}}{{template "a"}}`, `{{1_}}`, `{{1__0}}`, `{{08}}`, `{{1e}}`, `{{'}}`, `{{''}}`,
}

var execErrors = []string{
	`{{.s.x}}`, `{{.i.x}}`, `{{.list.x}}`, `{{.t.x}}`, `{{.nothing.x}}`, `{{.m.a.b.c}}`, `{{.s 1}}`, `{{.missing 1}}`, `{{1 2}}`, `{{. 1}}`, `{{nil}}`, `{{"a" "b"}}`, `{{$.s 1}}`, `{{$x := 1}}{{$x 2}}`, `{{.s | .s}}`, `{{1 | .i}}`,
	`{{index .list 3}}`, `{{index .list 99}}`, `{{index .list -1}}`, `{{index .list "a"}}`, `{{index .m 1}}`, `{{index .i 1}}`, `{{index .nothing 0}}`, `{{index .missing "a"}}`, `{{index .list nil}}`, `{{index .m nil}}`, `{{index}}`, `{{index .m "nope" "deeper"}}`, `{{index .list 1.5}}`,
	`{{len .i}}`, `{{len .nothing}}`, `{{len .missing}}`, `{{len .t}}`, `{{len 3}}`, `{{len}}`, `{{len .list .list}}`,
	`{{slice .list 2 1}}`, `{{slice .list 9}}`, `{{slice .i 1}}`, `{{slice .s 1 2 3}}`, `{{slice .list 1 2 3 4}}`, `{{slice .nothing}}`, `{{slice .m 1}}`,
	`{{range .s}}x{{end}}`, `{{range .t}}x{{end}}`, `{{range .f}}x{{end}}`, `{{range "abc"}}{{end}}`, `{{range $i, $e := 3}}x{{end}}`,
	`{{eq .s 1}}`, `{{eq .i 1.0}}`, `{{eq .list .list}}`, `{{eq .list 1}}`, `{{eq .m .m}}`, `{{eq .i}}`, `{{lt .s 1}}`, `{{lt .t true}}`, `{{lt .list .list}}`, `{{lt .nothing 1}}`, `{{ne 1 "a"}}`, `{{gt .m 1}}`, `{{lt 1}}`, `{{ne 1 2 3}}`, `{{not}}`, `{{not 1 2}}`, `{{and}}`, `{{or}}`, `{{eq}}`, `{{ge 1.5 "x"}}`, `{{le .missing 1}}`, `{{eq .list nil}}`, `{{eq nil nil}}`, `{{lt nil 1}}`, `{{eq .t 1}}`,
	`{{join .s ","}}`, `{{join .i ","}}`, `{{join .list}}`, `{{join .list 1}}`, `{{join "," .list}}`, `{{split .i ","}}`, `{{split .s}}`, `{{split .list ","}}`, `{{upper .i}}`, `{{upper .missing}}`, `{{upper .nothing}}`, `{{upper nil}}`, `{{upper 1}}`, `{{lower .list}}`, `{{title .m}}`, `{{pad .s "a" 1}}`, `{{pad .s -1 1}}`, `{{pad .s 1}}`, `{{truncate .s "a"}}`, `{{truncate .s -1}}`, `{{truncate .s}}`, `{{truncate .s 1.5}}`, `{{json}}`, `{{json 1 2}}`, `{{truncate .s .f}}`, `{{upper true}}`, `{{truncate .s 2.0}}`, `{{.i | upper}}`, `{{.missing | upper}}`,
	`{{printf}}`, `{{printf 1}}`, `{{printf .i}}`, `{{printf .missing}}`, `{{printf nil}}`, `{{call .s}}`, `{{call nil}}`, `{{call}}`, `{{call .missing}}`, `{{template "nope"}}`, `{{template "nope" .}}`, `{{define "r"}}{{.x.y}}{{end}}{{template "r" 1}}`, "line\n  {{.s.x}}", "line\n{{if .t}}\n   {{index .list 7}}{{end}}", `before {{.s.x}} after`, `{{if .s.x}}{{end}}`, `{{with .s.x}}{{end}}`, `{{range .s.x}}{{end}}`, `{{$x := .s.x}}`, `{{json .s.x}}`, `{{upper (index .list 9)}}`, `{{(index .list 9).x}}`, `{{(.s).x}}`, `{{(index .people 0).name.x}}`, `{{$.s.x}}`, `{{$v := .s}}{{$v.x}}`, `{{9223372036854775808}}`, `{{index .list 9223372036854775808}}`, `{{if index .list 9}}{{end}}`, `{{.s | index .list}}`, `{{printf "%s" (index .list 9)}}`, `{{if (eq 1 "a")}}x{{end}}`, `{{(nil).x}}`, `{{print (.s.x) "a"}}`, `{{range $i, $e := .s}}{{end}}`, `{{with $x := index .list 9}}{{end}}`, `{{range $i, $e := .people}}{{$e.name.first}}{{end}}`, `{{upper "a%d" "b"}}`, `{{index .list "100%"}}`, "{{index .list `raw`}}", `{{index .m "c" 1}}`,
}

var strict = []string{
	`{{.s}}`, `{{.missing}}`, `{{.Foo}}`, `{{.m.Foo}}`, `{{.m.c.Foo.Bar}}`, `{{.nothing}}`, `{{.nothing.x}}`, `{{index .m "nope"}}`, `{{if .missing}}a{{end}}`, `{{$.missing}}`, `{{json .missing}}`, `{{with .m}}{{.nope}}{{end}}`, `{{range .people}}{{.nope}}{{end}}`, `{{index .mixed 4}}`, "\n {{ .missing }}", `{{(index .m "nope").x}}`,
}

// Templates as found in scripts and manuals, on docker's own type for an image.
var inspects = []string{
	`{{.Os}}`, `{{.Id}}`, `{{.ID}}`, `{{.Os}}/{{.Architecture}}{{if .Variant}}/{{.Variant}}{{end}}`, `{{.Variant}}`, `{{.Size}}`, `{{.Created}}`, `{{.Author}}|{{.Comment}}`, `{{json .Config.Env}}`, `{{json .Config.Labels}}`, `{{json .RepoTags}}`, `{{json .RepoDigests}}`, `{{.RepoTags}}`, `{{.RepoDigests}}`, `{{.Config.Env}}`, `{{.Config.Labels}}`, `{{.Config.Cmd}}`, `{{.Config.Entrypoint}}`, `{{.Config.User}}`, `{{.Config.WorkingDir}}`, `{{.Config.ExposedPorts}}`, `{{.Config.Volumes}}`, `{{.Config.StopSignal}}`,
	`{{json .Config.Cmd}} {{json .Config.ExposedPorts}} {{json .Config.Volumes}}`, `{{index .RepoTags 0}}`, `{{index .RepoDigests 0}}`, `{{index .Config.Labels "a.b"}}`, `{{index .Config.Labels "nope"}}`, `{{.Config.Labels.maintainer}}`, `{{.Config.Labels.nope}}`, `{{with .Config.Labels}}{{.maintainer}}{{else}}none{{end}}`, `{{join .Config.Env ", "}}`, `{{join .Config.Cmd " "}}`, `{{join .RepoTags " "}}`, `{{range .Config.Env}}{{println .}}{{end}}`, `{{range $i, $e := .Config.Env}}{{$i}}: {{$e}}{{"\n"}}{{end}}`, `{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{"\n"}}{{else}}no labels{{end}}`, `{{range $p, $_ := .Config.ExposedPorts}}{{$p}} {{end}}`, `{{range .RootFS.Layers}}{{.}} {{end}}`, `{{len .RootFS.Layers}}`, `{{len .Config.Labels}} {{len .Config.Env}}`, `{{.RootFS.Type}}`, `{{json .RootFS}}`, `{{json .RootFS.Layers}}`, `{{if .Config.Labels}}labels{{else}}none{{end}}`, `{{if eq .Os "linux"}}L{{end}}`, `{{if and (eq .Os "linux") (ne .Architecture "amd64")}}other{{else}}amd64{{end}}`, `{{.Os | upper}}`, `{{title .Os}}`, `{{split .Id ":"}}`, `{{index (split .Id ":") 1}}`, `{{slice .Id 7 9}}`, `{{truncate .Id 12}}`, `{{printf "%d bytes" .Size}}`, `{{if gt .Size 1000}}big{{else}}small{{end}}`, `{{.Foo}}`, `{{.Config.Foo}}`, `{{.foo.bar}}`, `{{.os}}`, `{{.Config.Env.Foo}}`, `{{json .Foo}}`, `{{index .Foo 0}}`, `{{.Id`, `{{nosuch .Id}}`, `plain`, `{{range .Config.Env}}{{if eq (index (split . "=") 0) "LANG"}}{{index (split . "=") 1}}{{end}}{{end}}`, `{{- range .RepoTags -}} [{{.}}] {{- end -}}`, `{{with index .RepoTags 0}}{{.}}{{end}}`, `{{index .Config.Labels 0}}`, `{{index .Config.Env "PATH"}}`, `{{.Size.x}}`, `{{eq .Size 0}}`, `{{range .Os}}{{end}}`, `{{.Config.Labels.a}}`, `{{.Config.Labels.a.b}}`, `{{not .Config.Volumes}}`, `{{eq .Config.Labels nil}}`, `{{.Metadata.LastTagTime.Foo}}`, `{{printf "%v" .Config.Env}}`, `{{printf "%q" .RepoTags}}`, `{{print .Config.Labels}}`, `{{index .Config.Labels "a.b" | upper}}`, `{{or .Variant "none"}}`, `{{with .Author}}{{.}}{{else}}nobody{{end}}`, `{{join .Config.Labels ","}}`, `{{json (index .Config.Labels "nope")}}`, `{{$c := .Config}}{{$c.User}}`, `{{(.Config).User}}`,
}

var tables = []string{
	`table {{.Repository}}\t{{.Tag}}`, `table {{.ID}}\t{{.Repository}}\t{{.Size}}`, "table {{.ID}}\t{{.Repository}}", `{{.ID}}`, `{{.Repository}}:{{.Tag}}`, `{{.Repository}}\t{{.Tag}}`, `json`, `{{json .}}`, `{{json .ID}}`, `table {{.ID}}`, `table {{.Tag | upper}}\t{{lower .ID}}`, `table {{truncate .ID 4}}\t{{.CreatedBy}}`, `table {{if .CreatedBy}}{{.CreatedBy}}{{else}}N/A{{end}}\t{{.Size}}`, `table   {{.ID}}  `, `table{{.ID}}`, `table {{.ID}} {{.Tag}}`, `table {{.ID}}\n{{.Tag}}`, `table {{pad .ID 1 1}}\t{{.Tag}}`, `table {{json .Tag}}\t{{title .Repository}}`, `table text`, `  {{.ID}}  `, `x\ty`, `table {{.ID}}\t\t{{.Tag}}`, `table {{.ID}}\t`, `table {{.Digest}}\t{{.Size}}\t{{.CreatedBy}}`, `table {{.ID`, `{{.ID | nosuch}}`, `table {{split .ID "a"}}\t{{.Tag}}`, `table {{printf "%.5s" .ID}}\t{{.Tag}}`, `table {{join (split .Tag ".") "-"}}\t{{.ID}}`, `table {{slice .ID 0 2}}\t{{.Tag}}`, `table {{len .ID}}\t{{.Tag}}`, `table {{.ID}}\t{{.CreatedBy}}\t{{.Size}}`, `tableau {{.ID}}`, `table {{.ID}}{{"\t"}}{{.Tag}}`,
}
