"""Look at graphs, histories, kernels and training runs: in the terminal, in pictures, in one HTML file.

    terminal.graph_table(graph), graph_tree(graph), history_table(history), kernels_table(rows)      rich renderables
    curves.loss_curves({"eager": losses, "compiled": losses}, "loss.svg")                            PNG or SVG
    report.report("report.html", "A run", [Section("Speed", "…", Table(…), Svg(graph.to_svg()))])    one file
    units.flops(1_234_567)                                                                           '1.2 MFLOP'

Pictures of graphs come from the graph itself: `graph.to_svg()`, `graph.to_html(path)`, `graph.show()`. rich and
matplotlib are imported when they are first used.
"""
