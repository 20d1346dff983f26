//! Sentences that findings are made of. Each is said only where its condition in `findings` holds.

use super::texts::Text;

/// Every sentence.
pub const SENTENCES: &[Text] = &[
    (
        "summary.run",
        "`{engine}` ran `{model}` (backend `{backend}`, arithmetic `{arith}`) on these prompts: `{prompts}`.",
        "`{engine}` ejecutó `{model}` (backend `{backend}`, aritmética `{arith}`) con these prompts: `{prompts}`.",
    ),
    (
        "summary.phases",
        "For each, `{a}` (the last prompt token inside the prefill step) is compared with `{b}` (the same token, run again as a decode step over the cache of the tokens before it).",
        "En cada uno se compara `{a}` (el último token del prompt dentro del paso de prefill) con `{b}` (el mismo token, ejecutado otra vez como paso de decode sobre la caché de los tokens anteriores).",
    ),
    (
        "summary.no_phases",
        "The run did not record both `{a}` and `{b}`, so they are not compared.",
        "La corrida no registró `{a}` y `{b}` a la vez, así que no se comparan.",
    ),
    (
        "summary.runs",
        "Two runs of `{model}`, `{a}` and `{b}`, are compared for these prompts: `{prompts}`, each value at the same token, position and phase.",
        "Se comparan dos corridas de `{model}`, `{a}` y `{b}`, para estos prompts: `{prompts}`, cada valor en el mismo token, posición y fase.",
    ),
    ("summary.nothing", "**Nothing could be compared**: {why}.", "**No se pudo comparar nada**: {why}."),
    (
        "summary.differs",
        "**The first value that differs is `{node}`**, for `{prompts}` ({verdict}); every value before it in the graph is equal.",
        "**El primer valor que difiere es `{node}`**, para `{prompts}` ({verdict}); todos los valores anteriores del grafo son iguales.",
    ),
    (
        "summary.equal",
        "**All {values} values compared are equal to the bit** (MAE = 0.0), in every prompt.",
        "**Los {values} valores comparados son iguales bit a bit** (MAE = 0.0), en todos los prompts.",
    ),
    (
        "summary.mismatch",
        "`{prompt}` gives no number (TRACE_MISMATCH): {why}.",
        "`{prompt}` no da ningún número (TRACE_MISMATCH): {why}.",
    ),
    (
        "summary.unjudged",
        "The ops were not judged against their references: {why}.",
        "Las operaciones no se juzgaron contra sus referencias: {why}.",
    ),
    (
        "summary.nothing_judged",
        "No op could be judged against its reference.",
        "Ninguna operación pudo juzgarse contra su referencia.",
    ),
    (
        "summary.clean",
        "Each op was held against its f64 reference on the operands the run itself recorded: **all {checks} checks ({rows} rows) are within their error bounds**; the worst takes {ratio} of its bound, at `{node}`.",
        "Cada operación se comparó con su referencia f64 sobre los operandos que la propia corrida registró: **las {checks} comprobaciones ({rows} filas) están dentro de sus cotas de error**; la peor usa {ratio} de su cota, en `{node}`.",
    ),
    (
        "summary.fault",
        "Held against the f64 references on recorded operands, **the first op that is wrong is `{node}`**, class **`{class}`**: off by {ratio} times its bound in `{phase}` of `{prompt}`, position {position}.",
        "Contra las referencias f64 sobre los operandos registrados, **la primera operación incorrecta es `{node}`**, clase **`{class}`**: se aparta {ratio} veces su cota en `{phase}` de `{prompt}`, posición {position}.",
    ),
    (
        "summary.not_finite",
        "Held against the f64 references on recorded operands, **`{node}` is the first op to give NaN or infinity from operands that have none**, class **`{class}`**: in `{phase}` of `{prompt}`, position {position}.",
        "Contra las referencias f64 sobre los operandos registrados, **`{node}` es la primera operación que da NaN o infinito a partir de operandos que no los tienen**, clase **`{class}`**: en `{phase}` de `{prompt}`, posición {position}.",
    ),
    (
        "summary.fault_plain",
        "**`{node}` is wrong**, class **`{class}`**: {detail}.",
        "**`{node}` es incorrecto**, clase **`{class}`**: {detail}.",
    ),
    (
        "summary.hypothesis",
        "What it gave is explained by one hypothesis alone: **`{hypothesis}`**.",
        "Lo que dio se explica con una sola hipótesis: **`{hypothesis}`**.",
    ),
    ("summary.no_hypothesis", "No hypothesis explains what it gave.", "Ninguna hipótesis explica lo que dio."),
    (
        "diff.none_phases",
        "NONE in every prompt: prefill ≡ decode, bit for bit, for every value recorded.",
        "NONE en todos los prompts: prefill ≡ decode, bit a bit, para cada valor registrado.",
    ),
    (
        "diff.none_runs",
        "NONE in every prompt: the two runs are equal, bit for bit, for every value that both recorded.",
        "NONE en todos los prompts: las dos corridas son iguales, bit a bit, para cada valor que ambas registraron.",
    ),
    (
        "diff.equal_and_wrong",
        "That the rows compared agree does not make the run right: an op is wrong, as the verdict says.",
        "Que las filas comparadas coincidan no hace correcta la corrida: una operación es incorrecta, como dice el veredicto.",
    ),
    (
        "diff.norm_equal",
        "`{node}` is **not** the cause: it is equal (MAE = 0.0) in every prompt, and so is what comes before it.",
        "`{node}` **no** es la causa: es igual (MAE = 0.0) en todos los prompts, y también lo anterior.",
    ),
    (
        "diff.same_node",
        "In every prompt that differs, the first value that does is `{node}`.",
        "En todos los prompts que difieren, el primer valor que lo hace es `{node}`.",
    ),
    (
        "diff.inputs_equal",
        "What `{node}` reads (`{reads}`) is equal on both sides; the difference arises in `{node}` itself.",
        "Lo que lee `{node}` (`{reads}`) es igual en ambos lados; la diferencia nace en el propio `{node}`.",
    ),
    (
        "diff.routes",
        "`{node}` was computed by two kernels: `{route_a}` in `{a}`, `{route_b}` in `{b}`.",
        "A `{node}` lo calcularon dos kernels: `{route_a}` en `{a}`, `{route_b}` en `{b}`.",
    ),
    (
        "diff.kernel_not_weight",
        "Equal operands, and the same weight `{tensor}` gives equal results for short prompts: neither the weight nor its layout in the file is the cause. What grows with the prompt is the number of rows of the prefill step (M): this is the **kernel** on the route that large M takes.",
        "Operandos iguales, y el mismo peso `{tensor}` da resultados iguales en los prompts cortos: ni el peso ni su layout en el archivo son la causa. Lo que crece con el prompt es la cantidad de filas del paso de prefill (M): es el **kernel** de la ruta que toma M grande.",
    ),
    (
        "diff.kernel",
        "Equal operands, and short prompts come out equal: what grows with the prompt is the number of rows of the prefill step (M). This is the **kernel** of `{node}` on the route that large M takes.",
        "Operandos iguales, y los prompts cortos dan igual: lo que crece con el prompt es la cantidad de filas del paso de prefill (M). Es el **kernel** de `{node}` en la ruta que toma M grande.",
    ),
    (
        "diff.bits_owed",
        "Every op judged is within its error bound, so the difference is one of rounding; even so it should not be there: one backend and one arithmetic owe each other equal bits.",
        "Cada operación juzgada está dentro de su cota, así que la diferencia es de redondeo; aun así no debería existir: un mismo backend con una misma aritmética se debe bits iguales.",
    ),
    (
        "diff.within",
        "The difference is no larger than rounding explains (WITHIN_BOUNDS): one arithmetic, computed in two ways.",
        "La diferencia no supera lo que explica el redondeo (WITHIN_BOUNDS): una misma aritmética, calculada de dos maneras.",
    ),
    (
        "diff.drift",
        "The difference is no larger than two arithmetics bring about (EXPECTED_DRIFT), and it nowhere jumps.",
        "La diferencia no supera la que traen dos aritméticas (EXPECTED_DRIFT), y en ningún punto salta.",
    ),
    (
        "side.one",
        "In `{prompt}`, `{node}` is over its bound in `{wrong}` and within it in `{right}`: the reference agrees with the latter.",
        "En `{prompt}`, `{node}` supera su cota en `{wrong}` y está dentro de ella en `{right}`: la referencia coincide con este lado.",
    ),
    (
        "side.all",
        "In `{prompt}`, `{node}` is over its bound in every phase judged (`{wrong}`).",
        "En `{prompt}`, `{node}` supera su cota en todas las fases juzgadas (`{wrong}`).",
    ),
    (
        "class.a",
        "Class `A_input_selection`: `{node}` computes as it should, but on another row, token or position than the graph gives it.",
        "Clase `A_input_selection`: `{node}` calcula como debe, pero sobre otra fila, token o posición que la que le da el grafo.",
    ),
    (
        "class.b",
        "Class `B_norm_stats`: the statistics of the norm `{node}`, or its epsilon.",
        "Clase `B_norm_stats`: las estadísticas de la norma `{node}`, o su épsilon.",
    ),
    (
        "class.c",
        "Class `C_weight_layout`: `{node}` reads its weight in another layout, packing or place than the file has it in.",
        "Clase `C_weight_layout`: `{node}` lee su peso con otro layout, empaquetado o lugar que el del archivo.",
    ),
    (
        "class.weight",
        "Class `C_weight_layout`: the weight of `{node}` holds a value that is no number, or is read as if it did.",
        "Clase `C_weight_layout`: el peso de `{node}` contiene un valor que no es un número, o se lee como si lo tuviera.",
    ),
    (
        "class.d",
        "Class `D_kernel_math`: operands and weight of `{node}` are right, its kernel computes something else.",
        "Clase `D_kernel_math`: los operandos y el peso de `{node}` son correctos, su kernel calcula otra cosa.",
    ),
    (
        "class.e",
        "Class `E_precision`: `{node}` keeps sums or values in too low a precision.",
        "Clase `E_precision`: `{node}` guarda sumas o valores con muy poca precisión.",
    ),
    (
        "class.f",
        "Class `F_cache`: `{node}` reads or writes other cache rows than those of its sequence, layer and positions.",
        "Clase `F_cache`: `{node}` lee o escribe otras filas de la caché que las de su secuencia, capa y posiciones.",
    ),
    (
        "class.g",
        "Class `G_stale_data`: `{node}` shows data of an earlier step, or values that change between identical runs.",
        "Clase `G_stale_data`: `{node}` muestra datos de un paso anterior, o valores que cambian entre corridas idénticas.",
    ),
    (
        "class.mismatch",
        "`TRACE_MISMATCH`: `{node}` is not what the run's own record of its prompts says; nothing after it can be compared.",
        "`TRACE_MISMATCH`: `{node}` no es lo que dice el registro de prompts de la propia corrida; nada de lo que sigue es comparable.",
    ),
    (
        "class.unknown",
        "Class `UNKNOWN`: `{node}` is wrong in a way that no hypothesis describes.",
        "Clase `UNKNOWN`: `{node}` es incorrecto de una manera que ninguna hipótesis describe.",
    ),
    ("class.none", "`{node}` is within its bounds.", "`{node}` está dentro de sus cotas."),
    ("verdict.detail", "{detail}.", "{detail}."),
    (
        "verdict.explained",
        "Under `{hypothesis}` {left} of the bound is left unexplained; under the plain reference {plain} times the bound.",
        "Con `{hypothesis}` queda sin explicar {left} de la cota; con la referencia simple, {plain} veces la cota.",
    ),
    (
        "verdict.nearest",
        "The nearest hypothesis, `{hypothesis}`, leaves {left} times the bound unexplained (plain reference: {plain}); it is not accepted.",
        "La hipótesis más cercana, `{hypothesis}`, deja sin explicar {left} veces la cota (referencia simple: {plain}); no se acepta.",
    ),
    (
        "verdict.others",
        "Other nodes over their bounds: {n}; `{node}` comes first in the order of the run.",
        "Otros nodos sobre sus cotas: {n}; `{node}` es el primero en el orden de la corrida.",
    ),
    (
        "finite.first",
        "NaN or infinity first appears in `{node}`, in `{phase}` of `{prompt}`, position {position} ({nan} NaN, {inf} infinite); {nodes} values have some.",
        "El primer NaN o infinito aparece en `{node}`, en `{phase}` de `{prompt}`, posición {position} ({nan} NaN, {inf} infinitos); los hay en {nodes} valores.",
    ),
    (
        "finite.weight",
        "`{node}` gives what its reference gives, NaN included: the kernel is right and the weight `{tensor}` is not.",
        "`{node}` da lo que da su referencia, NaN incluidos: el kernel es correcto y el peso `{tensor}` no.",
    ),
    (
        "open.not_judged",
        "Nodes that could not be judged, wholly or in part: {n}, the first of them `{node}`: {why}.",
        "Nodos que no se pudieron juzgar, del todo o en parte: {n}; el primero, `{node}`: {why}.",
    ),
    (
        "length.nothing",
        "Nothing was compared, so length says nothing here.",
        "No se comparó nada, así que la longitud no dice nada.",
    ),
    (
        "length.equal",
        "Prompts of {short} to {long} tokens all agree; length makes no difference.",
        "Los prompts de {short} a {long} tokens coinciden todos; la longitud no influye.",
    ),
    (
        "length.threshold",
        "By length in tokens: prompts up to {a} agree, prompts from {b} on differ, first at `{node}`. The limit lies above {a} and at or below {b}.",
        "Por longitud en tokens: los prompts de hasta {a} coinciden, los de {b} en adelante difieren, primero en `{node}`. El límite está por encima de {a} y no más allá de {b}.",
    ),
    (
        "length.all",
        "Every prompt differs, from {short} to {long} tokens: length does not decide it.",
        "Todos los prompts difieren, de {short} a {long} tokens: la longitud no lo decide.",
    ),
    (
        "length.one",
        "Only one prompt was compared (length {short}): it says nothing about length.",
        "Se comparó un solo prompt (longitud {short}): nada dice sobre la longitud.",
    ),
    (
        "length.mixed",
        "Some prompts between {short} and {long} tokens differ and some do not, and length does not tell them apart.",
        "Entre {short} y {long} tokens algunos prompts difieren y otros no, y la longitud no los distingue.",
    ),
    (
        "length.step",
        "`{node}` was found wrong in a step of M = {n} (`{phase}`), by the kernel `{route}`.",
        "`{node}` resultó incorrecto en un paso de M = {n} (`{phase}`), con el kernel `{route}`.",
    ),
    (
        "end.fault",
        "The first wrong op is `{node}` (`{class}`), computed by the kernel `{route}`.",
        "La primera operación incorrecta es `{node}` (`{class}`), calculada por el kernel `{route}`.",
    ),
    (
        "end.bundle",
        "`greta replay {bundle}` runs that op alone on its recorded operands.",
        "`greta replay {bundle}` ejecuta sola esa operación sobre sus operandos registrados.",
    ),
    (
        "end.no_bundle",
        "`greta verify --nodes {node}` writes a replay bundle of it.",
        "`greta verify --nodes {node}` escribe un paquete para repetirla.",
    ),
    (
        "end.clean",
        "No fault was found: both sides are equal to the bit and every op judged is within its bound. Nothing is to be done.",
        "No se encontró ninguna falla: ambos lados son iguales bit a bit y cada operación juzgada está dentro de su cota. No hay nada que hacer.",
    ),
    (
        "end.clean_alone",
        "Every op judged is within its bound. Nothing was compared: two sides with values in common are needed for that.",
        "Cada operación juzgada está dentro de su cota. No se comparó nada: para eso hacen falta dos lados con valores en común.",
    ),
    (
        "end.nothing",
        "Nothing was compared and nothing was judged, so nothing can be said. Record more (`greta trace --rows all`), or give the model (`-m`).",
        "No se comparó ni se juzgó nada, así que nada puede decirse. Registra más (`greta trace --rows all`) o indica el modelo (`-m`).",
    ),
    (
        "end.equal_unjudged",
        "Both sides are equal to the bit. Whether they are right is not said by that: give the model (`-m`) to have each op judged by its reference.",
        "Ambos lados son iguales bit a bit. Eso no dice si son correctos: con el modelo (`-m`) cada operación se juzga por su referencia.",
    ),
    (
        "end.differs_clean",
        "The sides differ first at `{node}`, and no op that could be judged is over its bound. Compare the kernels and settings of both sides.",
        "Los lados difieren primero en `{node}`, y ninguna operación que pudo juzgarse supera su cota. Hay que comparar los kernels y la configuración de ambos lados.",
    ),
    (
        "end.differs_unjudged",
        "The sides differ first at `{node}`. Which of them is wrong is not known: give the model (`-m`) to have both judged by the reference.",
        "Los lados difieren primero en `{node}`. No se sabe cuál es el incorrecto: con el modelo (`-m`) la referencia juzga a ambos.",
    ),
    (
        "end.not_finite",
        "Look at where `{node}` got its NaN or infinity from; `greta inspect --check` reads every weight of the file.",
        "Hay que ver de dónde sacó `{node}` su NaN o infinito; `greta inspect --check` lee todos los pesos del archivo.",
    ),
    (
        "end.record_more",
        "Record with `--rows all` to have the nodes judged whose operands are not in this run.",
        "Con `--rows all` al registrar se juzgan también los nodos cuyos operandos no están en esta corrida.",
    ),
    (
        "next.a",
        "Next: check which row, position and buffer offset the kernel `{route}` is given for `{node}`.",
        "Próximo paso: revisar qué fila, posición y offset de buffer recibe el kernel `{route}` para `{node}`.",
    ),
    (
        "next.b",
        "Next: check the sum of squares, the epsilon and the lanes of the reduction in `{route}`.",
        "Próximo paso: revisar la suma de cuadrados, el épsilon y los carriles de la reducción en `{route}`.",
    ),
    (
        "next.c",
        "Next: check how `{route}` addresses and unpacks the weight of `{node}`.",
        "Próximo paso: revisar cómo `{route}` direcciona y desempaqueta el peso de `{node}`.",
    ),
    (
        "next.weight",
        "Next: `greta inspect --check` reads every weight of the file; if it finds the value too, the file is damaged: convert or fetch it again.",
        "Próximo paso: `greta inspect --check` lee todos los pesos del archivo; si también encuentra el valor, el archivo está dañado: convertirlo o descargarlo de nuevo.",
    ),
    (
        "next.d",
        "Next: fix the kernel `{route}` of `{node}`; force another one with `--route` to confirm.",
        "Próximo paso: corregir el kernel `{route}` de `{node}`; forzar otro con `--route` para confirmarlo.",
    ),
    (
        "next.e",
        "Next: check the type of the accumulator and the rounding of the output in `{route}`.",
        "Próximo paso: revisar el tipo del acumulador y el redondeo de la salida en `{route}`.",
    ),
    (
        "next.f",
        "Next: check the block table, the layer's base and the length that `{route}` is given for `{node}`.",
        "Próximo paso: revisar la tabla de bloques, la base de la capa y la longitud que recibe `{route}` para `{node}`.",
    ),
    (
        "next.g",
        "Next: check what `{route}` waits for, and when the buffer of `{node}` is reused.",
        "Próximo paso: revisar qué espera `{route}`, y cuándo se reutiliza el buffer de `{node}`.",
    ),
    (
        "next.finite",
        "Next: find what gives or hides the NaN or infinity in the kernel `{route}` of `{node}`.",
        "Próximo paso: buscar qué produce u oculta el NaN o infinito en el kernel `{route}` de `{node}`.",
    ),
    (
        "end.fault_foreign",
        "The first wrong op is `{node}` (`{class}`), as `{engine}` computed it.",
        "La primera operación incorrecta es `{node}` (`{class}`), tal como la calculó `{engine}`.",
    ),
    (
        "next.foreign",
        "Next: correct `{node}` in `{engine}`, record it again and import that run.",
        "Próximo paso: corregir `{node}` en `{engine}`, registrarlo otra vez e importar esa corrida.",
    ),
    (
        "next.mismatch",
        "Next: make both sides run the same tokens; until then nothing else is comparable.",
        "Próximo paso: hacer que ambos lados ejecuten los mismos tokens; hasta entonces nada más es comparable.",
    ),
];
